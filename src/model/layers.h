// The parts that architectures are put together from. Each is a view of packed weights and one
// function that calls one or two ops; shapes are checked by the ops' argument structs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/model.h"
#include "model/workspace.h"

namespace quire {

// One forward pass in progress: what every layer needs to know.
class Step {
 public:
  Step(ForwardContext& context, const ModelConfig& config, const float* rope_table)
      : context(context),
        config(config),
        rope_table(rope_table),
        num_tokens(static_cast<int64_t>(context.batch.tokens.size())),
        num_logit_rows(static_cast<int64_t>(context.batch.logit_rows.size())) {}

  // A new activation [T, cols]; lives until the enclosing Workspace::Scope ends.
  MatF rows(int64_t cols) { return context.workspace->matrix(num_tokens, cols); }
  const ExecContext& exec() const { return context.exec; }
  const OpTable& ops() const { return *context.ops; }

  ForwardContext& context;
  const ModelConfig& config;
  const float* rope_table;
  int64_t num_tokens;      // T
  int64_t num_logit_rows;  // R
};

inline ConstMatF view(const MatF& m) { return {m.data, m.rows, m.cols, m.stride}; }
// Columns [first, first + count) of m.
inline MatF columns(const MatF& m, int64_t first, int64_t count) {
  return {m.data + first, m.rows, count, m.stride};
}

// y = x W^T + bias for a fused matrix: named segments whose output columns follow one another, each
// with its own type.
struct Linear {
  std::vector<std::string> names;
  std::vector<PackedMatrix> segments;
  const float* bias = nullptr;  // [n] or null
  int64_t n = 0, k = 0;         // outputs of all segments, inputs
  // Gives the logits. int8 activations here would cost a quarter of that mode's KL divergence, and
  // the head runs for the few rows alone whose logits are wanted: kInt8 stands for kInt16.
  bool is_output_head = false;

  void operator()(Step& f, const MatF& x, const MatF& y, bool add_to_y = false) const;
  // The same into a new activation [x.rows, n].
  MatF operator()(Step& f, const MatF& x) const;

 private:
  ActivationType activation_type(const Step& f, DType weights) const;
};

// The stream of residual sums that layers read and add to.
struct Residual {
  MatF sum;           // [T, E]
  bool fresh = true;  // nothing to add yet: the sum is the embedding
};

struct RmsNorm {
  const float* weight = nullptr;
  float eps = 0;

  // residual += x (but for the first layer), then x = norm(residual).
  void add(Step& f, const MatF& x, Residual& residual) const;
  // Each head of x by itself.
  void per_head(Step& f, const MatF& x, int heads) const;
};

struct LayerNorm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;

  void operator()(Step& f, const MatF& x, const MatF& y) const;
};

void embed(Step& f, const PackedMatrix& table, std::span<const int32_t> ids, const MatF& out);
void add(Step& f, const MatF& x, const MatF& y);  // y += x
void relu(Step& f, const MatF& x);
// gate_up [T, 2I] -> [T, I].
MatF silu_and_mul(Step& f, const MatF& gate_up);
void rope(Step& f, const MatF& x, int heads);
// qkv [T, (H + 2K) D] as views; q and k also as one, for what treats all their heads alike.
struct Heads {
  MatF q, k, v, qk;
};
Heads split_heads(const Step& f, const MatF& qkv);
// The rows of x [T, cols] whose logits are wanted: [R, cols].
MatF gather_logit_rows(Step& f, const MatF& x);

// logits = lm_head(norm(residual + x)), of the wanted rows only.
void write_logits(
    Step& f, const MatF& x, const Residual& residual, const RmsNorm& norm, const Linear& lm_head);

// Writes k and v [T, K*D] into the paged cache of `layer`, then attends with q [T, H*D].
MatF attention(Step& f, int layer, const MatF& q, const MatF& k, const MatF& v);

}  // namespace quire
