// The scheduler's settings.
#pragma once

#include <cstdint>

#include "engine/policies.h"

namespace quire {

// What becomes of the KV of a group that must give up its blocks. Vocabulary of the PagedAttention
// paper (Kwon et al., SOSP 2023, section 4.5).
enum class PreemptionMode : uint8_t {
  kRecompute,  // dropped and computed again
  kSwap,       // copied to the host pool, all of it or nothing; recomputed where that is full
  kAuto,       // whichever is cheaper by the measured costs
};

struct SchedulerConfig {
  int max_num_seqs = 64;
  int max_num_batched_tokens = 512;
  int max_model_len = 2048;
  int long_prefill_token_threshold = 0;
  int max_logit_rows = 65;  // of a step; at least max_num_seqs + 1
  bool enable_prefix_caching = true;
  PreemptionMode preemption_mode = PreemptionMode::kRecompute;
  int num_host_blocks = 0;                // of the host pool
  double swap_seconds_per_block = 0;      // measured: out and back in again
  KvPolicy kv_policy = KvPolicy::kPaged;  // the others: without prefix caching and swapping
  Batching batching = Batching::kContinuous;
  int batch_size = 8;       // requests of a dynamic or static batch
  double batch_window = 0;  // seconds that the first request of a dynamic batch waits at most
  bool operator==(const SchedulerConfig&) const = default;
};

}  // namespace quire
