// Every byte that the engine will take, computed from the model's headers before any weight is
// read. CpuModelRunner allocates what this says, so that the plan that is printed is the one that
// runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "engine/engine_config.h"
#include "model/loader.h"
#include "model/model.h"

namespace quire {

// Rows of logits of a step beyond one per sequence: what prompt_logprobs may ask for.
inline constexpr int kPromptLogitRows = 256;

// What is not the engine's, and counts.
struct MemoryContext {
  int64_t total_bytes = 0;      // of the machine
  int64_t available_bytes = 0;  // what can be allocated now
  // The model's weights and tables if they are still to be loaded; empty: it is in memory already,
  // and available_bytes are what it left.
  std::span<const PackedGroup> weights = {};
  bool is_loaded = true;
  int64_t tokenizer_bytes = 0;
  int64_t program_bytes = 0;
};

struct MemoryPlan {
  std::vector<PackedGroup> weights;
  int64_t weight_bytes = 0;
  int64_t rope_bytes = 0;  // the rotary table of max_model_len positions
  int64_t tokenizer_bytes = 0;
  int64_t program_bytes = 0;

  // One step of max_num_batched_tokens tokens.
  int num_threads = 0;
  int max_logit_rows = 0;         // R
  int64_t activation_bytes = 0;   // the workspace at its peak
  int64_t logits_bytes = 0;       // [R, V] f32
  int64_t scratch_bytes = 0;      // of the kernels: what they write of the next
  int64_t scratch_reserved = 0;   // each thread its own
  int64_t sampler_bytes = 0;      // of the threads that draw tokens
  int64_t bookkeeping_bytes = 0;  // block pool, tables, tokens, batches

  KvPoolPlan kv;
  int64_t num_host_blocks = 0;
  int64_t swap_bytes = 0;  // of num_host_blocks

  int64_t rounding_bytes =
      0;  // of the large buffers to whole pages, of 2 MiB where they are as large

  int64_t available_bytes = 0;
  Status refusal;  // the first thing that does not fit, with the numbers and the flag that mends it

  // All but the KV pool.
  int64_t fixed_bytes() const;
  // With every KV block written and the largest step computed.
  int64_t peak_bytes() const { return fixed_bytes() + kv.pool_bytes; }
  // How many sequences of `num_tokens` tokens, prompt and answer, the KV pool holds.
  int64_t num_sequences(int num_tokens) const;
  int block_size = 0;
};

// Pure. `config` is valid.
MemoryPlan plan_memory(const EngineConfig& config,
                       const Model& model,
                       const MemoryContext& context);

// The engine's types of what the flags name.
DType kv_cache_type(const EngineConfig& config);
ActivationType activation_type(const EngineConfig& config);

}  // namespace quire
