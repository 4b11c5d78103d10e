#include "model/layers.h"

#include <cmath>

#include "base/mutants.h"
#include "kernels/backend.h"
#include "model/standard_attention.h"

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

namespace {

// Columns of x for a matrix that takes rows of k.
int64_t input_cols(const LinearInput& in, int64_t k) {
  const bool has_gate = in.function != nullptr && *in.function == ActivationFunction::kSiluAndMul;
  return has_gate ? 2 * k : k;
}

// The rows of a matrix that takes activations of `out`'s type, by one op.
void prepare(Step& f, const LinearInput& in, const Activations& out) {
  if (in.norm != nullptr) {
    const Norm& norm = *in.norm;
    f.ops().norm_quantize(f.exec(),
                          {norm.kind,
                           view(in.added),
                           in.x,
                           norm.weight,
                           norm.bias,
                           norm.eps,
                           norm.replaces_sum ? in.x : MatF{},
                           out});
  } else if (in.function != nullptr) {
    f.ops().activate_quantize(f.exec(), {*in.function, view(in.x), out});
  } else {
    f.ops().quantize(f.exec(), {view(in.x), out});
  }
}

}  // namespace

void Linear::operator()(Step& f, LinearInput in, const Output& out) const {
  const MatF& y = out.y;
  QUIRE_CHECK(in.x.cols == input_cols(in, k));
  QUIRE_CHECK(y.cols == n && y.rows == in.x.rows);
  if (y.rows == 0) return;
  const float* bias = out.with_bias ? this->bias : nullptr;
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
    Activations prepared{type, y.rows, k, nullptr};
    prepared.data = f.context.workspace->bytes(activation_bytes(type, y.rows, k));
    prepare(f, in, prepared);
    in.added = {};  // once
    if (in.norm != nullptr && in.norm->replaces_sum) in.norm = nullptr;
    f.ops().linear(f.exec(),
                   {prepared,
                    &segments[first],
                    static_cast<int32_t>(last - first),
                    bias == nullptr ? nullptr : bias + column,
                    out.add_to_y,
                    columns(y, column, width)});
    column += width;
    first = last;
  }
}

void Linear::operator()(Step& f, const MatF& x, const MatF& y) const {
  (*this)(f, {.x = x}, {.y = y});
}

void Norm::operator()(Step& f, const MatF& x, const MatF& y) const {
  if (kind == NormKind::kRms) {
    f.ops().rms_norm(f.exec(), {view(x), weight, eps, y});
  } else {
    f.ops().layer_norm(f.exec(), {view(x), weight, bias, eps, y});
  }
}

void Norm::per_head(Step& f, const MatF& x, int heads) const {
  f.ops().head_rms_norm(f.exec(), {x, heads, static_cast<int32_t>(x.cols / heads), weight, eps});
}

Residual::Residual(Step& f) : sum(f.rows(f.config.hidden_size)), pending{} {
  if (!f.fuses(Fusion::kBiasResidual)) pending = f.rows(f.config.hidden_size);
}

void norm_linear(Step& f,
                 Fusion fusion,
                 const Norm& norm,
                 Residual& residual,
                 const Linear& linear,
                 const MatF& y) {
  Workspace::Scope scope(*f.context.workspace);
  const MatF& sum = residual.sum;
  LinearInput in{.x = sum};
  if (norm.weight != nullptr && f.fuses(fusion)) {
    in.norm = &norm;
    if (residual.has_pending) in.added = residual.pending;
  } else {
    if (residual.has_pending && !mutant("exactness_pending_sum_lost")) {
      add(f, residual.pending, sum);
    }
    if (norm.weight != nullptr) {
      if (!norm.replaces_sum) in.x = f.context.workspace->matrix(sum.rows, sum.cols);
      norm(f, sum, in.x);
    }
  }
  residual.has_pending = false;
  linear(f, in, {.y = y});
}

MatF norm_linear(
    Step& f, Fusion fusion, const Norm& norm, Residual& residual, const Linear& linear) {
  MatF y = f.context.workspace->matrix(residual.sum.rows, linear.n);
  norm_linear(f, fusion, norm, residual, linear, y);
  return y;
}

void add_linear(Step& f, const Linear& linear, const LinearInput& x, Residual& residual) {
  QUIRE_CHECK(!residual.has_pending);
  if (f.fuses(Fusion::kBiasResidual)) {
    linear(f, x, {.y = residual.sum, .add_to_y = true});
    return;
  }
  linear(f, x, {.y = residual.pending, .with_bias = false});
  if (linear.bias != nullptr) f.ops().add_bias(f.exec(), {linear.bias, residual.pending});
  residual.has_pending = true;
}

void add_linear(
    Step& f, const Linear& linear, ActivationFunction function, const MatF& x, Residual& residual) {
  if (f.fuses(Fusion::kNormMlp)) {
    add_linear(f, linear, {.x = x, .function = &function}, residual);
  } else if (function == ActivationFunction::kRelu) {
    f.ops().relu(f.exec(), {x});
    add_linear(f, linear, {.x = x}, residual);
  } else {
    MatF y = f.context.workspace->matrix(x.rows, x.cols / 2);
    f.ops().silu_and_mul(f.exec(), {view(x), y});
    add_linear(f, linear, {.x = y}, residual);
  }
}

void embed(Step& f, const PackedMatrix& table, std::span<const int32_t> ids, const MatF& out) {
  f.ops().embedding(f.exec(), {table, ids.data(), out});
}

void add(Step& f, const MatF& x, const MatF& y) { f.ops().add(f.exec(), {view(x), y}); }

void rope(Step& f, const MatF& x, int heads) {
  f.ops().rope(f.exec(),
               {x,
                heads,
                f.config.head_dim,
                f.config.rope.rotary_dim,
                f.context.batch.positions.data(),
                f.rope_table});
}

Heads split_heads(const Step& f, const MatF& qkv) {
  const int64_t d = f.config.head_dim, q = f.config.num_heads * d, kv = f.config.num_kv_heads * d;
  return {
      columns(qkv, 0, q), columns(qkv, q, kv), columns(qkv, q + kv, kv), columns(qkv, 0, q + kv)};
}

Residual gather_logit_rows(Step& f, const Residual& residual) {
  const auto gather = [&f](const MatF& x) {
    MatF y = f.context.workspace->matrix(f.num_logit_rows, x.cols);
    f.ops().gather_rows(f.exec(), {view(x), f.context.batch.logit_rows.data(), y});
    return y;
  };
  Residual wanted = residual;
  wanted.sum = gather(residual.sum);
  if (residual.has_pending) wanted.pending = gather(residual.pending);
  return wanted;
}

void write_logits(Step& f, const Residual& residual, const Norm& norm, const Linear& lm_head) {
  if (f.num_logit_rows == 0) return;
  Workspace::Scope scope(*f.context.workspace);
  Residual wanted = gather_logit_rows(f, residual);
  norm_linear(f, Fusion::kNormQkv, norm, wanted, lm_head, f.context.logits);
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
  const AttentionArgs args{view(q),
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
                           out};
  if (f.fuses(Fusion::kAttention)) {
    f.ops().attention(f.exec(), args);
  } else {
    standard_attention(f, args);
  }
  return out;
}

}  // namespace quire
