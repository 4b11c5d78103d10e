// The engine's settings. Field names are the command line's flags, which are vLLM's where vLLM has
// one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"

namespace quire {

inline constexpr int kMaxThreads = 1024;

struct EngineConfig {
  int max_model_len = 0;  // tokens of prompt + output; 0: the model's context, as far as the KV
                          // pool holds it
  int max_num_seqs = 64;  // sequences running at once
  int max_num_batched_tokens = 512;     // of a step
  int block_size = 16;                  // tokens, a power of two in [1, 256]
  std::string kv_cache_dtype = "auto";  // auto (= float16), float16, bfloat16, float32
  int64_t kv_cache_memory_bytes = 0;    // 0: kv_cache_memory_share of the free memory
  double kv_cache_memory_share = 0.4;
  // > 0: instead of a share of the free memory, all of the machine's memory times this, less
  // everything else at its peak (vLLM's formula).
  double gpu_memory_utilization = 0;
  bool enable_prefix_caching = true;
  std::string preemption_mode = "recompute";  // recompute; swap, auto: with swap_space_bytes
  int64_t swap_space_bytes = 0;               // of the host pool that preempted groups go to
  int long_prefill_token_threshold = 0;       // most tokens of one sequence in a step; 0: no limit
  int max_num_queued_reqs = 1024;             // submitted and not running yet
  int max_logprobs = 20;                      // -1: no limit
  // For experiments (engine/policies.h).
  std::string kv_policy = "paged";      // paged; max, pow2, oracle, grow: contiguous regions; off
  std::string batching = "continuous";  // continuous, dynamic, static
  int batch_size = 8;                   // requests of a dynamic or static batch
  int batch_window_ms = 10;             // that the first request of a dynamic batch waits at most
  std::optional<uint64_t> seed;         // of requests without one; absent: different in every run
  int num_threads = 0;                  // 0: every core this process may use
  std::string activations = "int16";    // of quantised weights: int16, int8, f32
  std::string isa;                      // "": QUIRE_ISA, else the best that runs here

  // Names the flag, its value, what is allowed and the remedy.
  Status validate() const;
};

// The size of the KV pool, and the numbers to print.
struct KvPoolPlan {
  int64_t block_bytes = 0;  // of one block in all layers
  int64_t num_blocks = 0;
  int64_t pool_bytes = 0;
  int64_t num_tokens = 0;         // that fit
  int64_t bytes_per_token = 0;    // rounded up
  int max_model_len = 0;          // resolved
  std::string to_string() const;  // one line
};

struct KvPoolInputs {
  int num_layers = 0;
  int64_t block_bytes_per_layer = 0;
  int64_t free_memory_bytes = 0;  // or, with gpu_memory_utilization, what that leaves
  int model_max_len = 0;          // the model's context length
};

// Pure. Uses kv_cache_memory_bytes, or what gpu_memory_utilization leaves, whole; or
// kv_cache_memory_share of the free memory, but then no more than max_num_seqs sequences of
// max_model_len tokens can use.
Result<KvPoolPlan> plan_kv_pool(const EngineConfig& config, const KvPoolInputs& inputs);
// The same numbers even where they are refused; *refusal says why.
KvPoolPlan size_kv_pool(const EngineConfig& config, const KvPoolInputs& inputs, Status* refusal);

}  // namespace quire
