#include "model/layers.h"

#include <cmath>

#include "base/mutants.h"
#include "kernels/backend.h"

namespace quire {
namespace {

bool is_plain(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

}  // namespace

// Plain weights keep f32 activations, whatever the step's type for quantised ones.
ActivationType Linear::activation_type(const Step& f, DType weights) const {
  if (is_plain(weights)) return ActivationType::kF32;
  const ActivationType type = f.context.activations;
  return type == ActivationType::kInt8 && is_output_head && !mutant("golden_int8_logits")
             ? ActivationType::kInt16
             : type;
}

void Linear::operator()(Step& f, const MatF& x, const MatF& y, bool add_to_y) const {
  QUIRE_CHECK(x.cols == k && y.cols == n && y.rows == x.rows);
  if (x.rows == 0) return;
  int64_t column = 0;
  for (size_t first = 0; first < segments.size();) {
    // Segments that take the same activations go in one call.
    const ActivationType type = activation_type(f, segments[first].type);
    size_t last = first;
    int64_t width = 0;
    for (; last < segments.size() && activation_type(f, segments[last].type) == type; ++last) {
      width += segments[last].n;
    }
    Workspace::Scope scope(*f.context.workspace);
    Activations prepared{type, x.rows, k, nullptr};
    prepared.data = f.context.workspace->bytes(activation_bytes(type, x.rows, k));
    f.ops().quantize(f.exec(), {view(x), prepared});
    f.ops().linear(f.exec(),
                   {prepared,
                    &segments[first],
                    static_cast<int32_t>(last - first),
                    bias == nullptr ? nullptr : bias + column,
                    add_to_y,
                    columns(y, column, width)});
    column += width;
    first = last;
  }
}

MatF Linear::operator()(Step& f, const MatF& x) const {
  MatF y = f.context.workspace->matrix(x.rows, n);
  (*this)(f, x, y);
  return y;
}

void RmsNorm::add(Step& f, const MatF& x, Residual& residual) const {
  if (residual.fresh) {
    f.ops().rms_norm(f.exec(), {view(residual.sum), weight, eps, x});
  } else {
    f.ops().add_rms_norm(f.exec(), {view(x), residual.sum, weight, eps, x});
  }
  residual.fresh = false;
}

void RmsNorm::per_head(Step& f, const MatF& x, int heads) const {
  f.ops().head_rms_norm(f.exec(), {x, heads, static_cast<int32_t>(x.cols / heads), weight, eps});
}

void LayerNorm::operator()(Step& f, const MatF& x, const MatF& y) const {
  f.ops().layer_norm(f.exec(), {view(x), weight, bias, eps, y});
}

void embed(Step& f, const PackedMatrix& table, std::span<const int32_t> ids, const MatF& out) {
  f.ops().embedding(f.exec(), {table, ids.data(), out});
}

void add(Step& f, const MatF& x, const MatF& y) { f.ops().add(f.exec(), {view(x), y}); }

void relu(Step& f, const MatF& x) { f.ops().relu(f.exec(), {x}); }

MatF silu_and_mul(Step& f, const MatF& gate_up) {
  MatF y = f.context.workspace->matrix(gate_up.rows, gate_up.cols / 2);
  f.ops().silu_and_mul(f.exec(), {view(gate_up), y});
  return y;
}

void rope(Step& f, const MatF& x, int heads) {
  f.ops().rope(f.exec(),
               {x,
                heads,
                f.config.head_dim,
                f.config.rope.rotary_dim,
                f.context.batch.positions.data(),
                f.rope_table});
}

MatF gather_logit_rows(Step& f, const MatF& x) {
  MatF y = f.context.workspace->matrix(f.num_logit_rows, x.cols);
  f.ops().gather_rows(f.exec(), {view(x), f.context.batch.logit_rows.data(), y});
  return y;
}

Heads split_heads(const Step& f, const MatF& qkv) {
  const int64_t d = f.config.head_dim, q = f.config.num_heads * d, kv = f.config.num_kv_heads * d;
  return {
      columns(qkv, 0, q), columns(qkv, q, kv), columns(qkv, q + kv, kv), columns(qkv, 0, q + kv)};
}

void write_logits(
    Step& f, const MatF& x, const Residual& residual, const RmsNorm& norm, const Linear& lm_head) {
  if (f.num_logit_rows == 0) return;
  Workspace::Scope scope(*f.context.workspace);
  MatF rows = gather_logit_rows(f, x);
  Residual wanted{gather_logit_rows(f, residual.sum), residual.fresh};
  norm.add(f, rows, wanted);
  lm_head(f, rows, f.context.logits);
}

MatF attention(Step& f, int layer, const MatF& q, const MatF& k, const MatF& v) {
  const ForwardBatch& batch = f.context.batch;
  KvCache& kv = *f.context.kv;
  f.ops().kv_write(
      f.exec(),
      {view(k), view(v), batch.slots.data(), kv.layout(), kv.layer(layer), kv.overflows()});
  int32_t window = layer < f.config.first_window_layer ? 0 : f.config.sliding_window;
  if (mutant("golden_window_off_by_one") && window > 0) ++window;
  MatF out = f.rows(q.cols);
  f.ops().attention(f.exec(),
                    {view(q),
                     f.config.num_heads,
                     kv.layout(),
                     kv.layer(layer),
                     static_cast<int32_t>(batch.kv_len.size()),
                     batch.query_start.data(),
                     batch.kv_len.data(),
                     batch.block_tables.data(),
                     batch.block_table_stride,
                     1.0f / std::sqrt(static_cast<float>(f.config.head_dim)),
                     window,
                     out});
  return out;
}

}  // namespace quire
