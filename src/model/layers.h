// The parts that architectures are put together from. Each is a view of packed weights and one
// function that calls one or two ops; shapes are checked by the ops' argument structs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "model/fusion.h"
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
  bool fuses(Fusion fusion) const { return context.fusions.has(fusion); }

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

// RMSNorm or LayerNorm of rows.
struct Norm {
  NormKind kind = NormKind::kRms;
  const float* weight = nullptr;  // null: no norm
  const float* bias = nullptr;    // of kLayer; may be null
  float eps = 0;
  bool replaces_sum = false;  // post-norm: the residual sum becomes its norm

  void operator()(Step& f, const MatF& x, const MatF& y) const;
  // Each head of x by itself (kRms).
  void per_head(Step& f, const MatF& x, int heads) const;
};

// The rows x [T, k] that a matrix multiplies, and what one op does to them on their way.
struct LinearInput {
  MatF x;
  const Norm* norm = nullptr;  // norm(x); if `added` has data, it is added to x before
  MatF added = {};
  const ActivationFunction* function = nullptr;  // function(x)
};

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

  struct Output {
    MatF y;
    bool add_to_y = false, with_bias = true;
  };
  void operator()(Step& f, LinearInput in, const Output& out) const;
  void operator()(Step& f, const MatF& x, const MatF& y) const;

 private:
  ActivationType activation_type(const Step& f, DType weights) const;
};

// The stream of residual sums that layers read and add to.
struct Residual {
  explicit Residual(Step& f);

  MatF sum;                  // [T, E]
  MatF pending;              // [T, E] what add_linear gave and the sum has not taken up yet
  bool has_pending = false;  // with Fusion::kBiasResidual never, and `pending` has no memory
};

// Between a fused op and the ops it stands for, these functions and attention() alone decide.

// linear(norm(residual)); for Fusion::kNormQkv and kNormMlp.
void norm_linear(Step& f,
                 Fusion fusion,
                 const Norm& norm,
                 Residual& residual,
                 const Linear& linear,
                 const MatF& y);
// The same into a new activation [T, n].
MatF norm_linear(
    Step& f, Fusion fusion, const Norm& norm, Residual& residual, const Linear& linear);
// residual += linear(x).
void add_linear(Step& f, const Linear& linear, const LinearInput& x, Residual& residual);
// residual += linear(function(x)).
void add_linear(
    Step& f, const Linear& linear, ActivationFunction function, const MatF& x, Residual& residual);

void embed(Step& f, const PackedMatrix& table, std::span<const int32_t> ids, const MatF& out);
void add(Step& f, const MatF& x, const MatF& y);  // y += x
void rope(Step& f, const MatF& x, int heads);
// qkv [T, (H + 2K) D] as views; q and k also as one, for what treats all their heads alike.
struct Heads {
  MatF q, k, v, qk;
};
Heads split_heads(const Step& f, const MatF& qkv);
// The rows of the residual sum whose logits are wanted: [R, E].
Residual gather_logit_rows(Step& f, const Residual& residual);

// logits = lm_head(norm(residual)), of the wanted rows only.
void write_logits(Step& f, const Residual& residual, const Norm& norm, const Linear& lm_head);

// Writes k and v [T, K*D] into the paged cache of `layer`, then attends with q [T, H*D].
MatF attention(Step& f, int layer, const MatF& q, const MatF& k, const MatF& v);

}  // namespace quire
