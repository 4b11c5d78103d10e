// A model in memory: packed weights and the forward pass of its architecture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"
#include "model/fusion.h"
#include "model/kv_cache.h"
#include "model/model_config.h"

namespace quire {

// One step, all sequences packed. T tokens, S sequences, R logit rows. Views of the runner's
// buffers.
struct ForwardBatch {
  std::span<const int32_t> tokens;        // [T]
  std::span<const int32_t> positions;     // [T]
  std::span<const int64_t> slots;         // [T] block * B + offset where the token's KV goes
  std::span<const int32_t> query_start;   // [S+1]
  std::span<const int32_t> kv_len;        // [S] tokens in the cache after this step's writes
  std::span<const int32_t> block_tables;  // [S, block_table_stride]
  int block_table_stride = 0;
  std::span<const int32_t> logit_rows;  // [R] rows of [0, T) whose logits are wanted, increasing
};

class Workspace;  // activations of one step, sized once for max_num_batched_tokens
                  // (model/workspace.h)

struct ForwardContext {
  const OpTable* ops;
  ExecContext exec;
  // Of quantised weights; plain f32/f16/bf16 weights always take kF32. With kInt8 the output head
  // takes kInt16.
  ActivationType activations;
  FusionSet fusions = FusionSet::all();  // that `ops` supports (FusionSet::supported_by)
  int64_t score_bytes = 16 << 20;  // at a time, without Fusion::kAttention (standard_attention.h)
  ForwardBatch batch;
  KvCache* kv;
  Workspace* workspace;
  MatF logits;  // [R, V], out
};

// Virtual once per step. forward() neither allocates nor blocks.
class Model {
 public:
  virtual ~Model() = default;
  const ModelConfig& config() const { return config_; }
  virtual void forward(ForwardContext& context) const = 0;
  // Bytes of Workspace that a step of `num_tokens` tokens and `num_logit_rows` rows needs.
  virtual int64_t workspace_bytes(int num_tokens,
                                  int num_logit_rows,
                                  ActivationType activations,
                                  FusionSet fusions) const = 0;

 protected:
  explicit Model(ModelConfig config) : config_(std::move(config)) {}
  ModelConfig config_;
};

}  // namespace quire
