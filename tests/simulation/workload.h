// Random workloads for the scheduler, made from a seed, and their execution under every invariant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/policies.h"
#include "engine/request.h"

namespace quire {

struct SimRequest {
  int arrival_step = 0;
  int cancel_step = -1;         // -1: never
  bool cancel_between = false;  // after launch and before commit, instead of before schedule
  std::vector<int32_t> prompt;
  std::string salt;
  int n = 1;
  int beam_width = 0;
  double length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  int max_tokens = 1, min_tokens = 0;
  std::optional<int> expected_output_tokens;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool wants_all_rows = false;
};

struct Workload {
  uint64_t seed = 0;
  int num_blocks = 4, block_size = 2;
  int max_num_seqs = 2, max_num_batched_tokens = 4, long_prefill_token_threshold = 0;
  int extra_rows = 1;
  int max_model_len = 64;
  int vocab_size = 13;
  bool enable_prefix_caching = true;
  int num_host_blocks = 0;  // > 0: preemption swaps
  int depth = 1;            // steps in flight
  KvPolicy kv_policy = KvPolicy::kPaged;
  Batching batching = Batching::kContinuous;
  int batch_size = 1, batch_window = 0;  // requests, steps
  std::vector<SimRequest> requests;
};

struct SimCounters {
  int64_t steps = 0, preemptions = 0, prefix_hits = 0, evictions = 0, finished = 0, cancelled = 0,
          refused = 0, beam_searches = 0, copies = 0, swapped_out = 0, swapped_in = 0;
};

Workload random_workload(uint64_t seed);
// The same requests under another memory policy and a random way of batching.
Workload with_policy(Workload workload, KvPolicy policy);
// Empty when everything held; else what was violated and where.
std::string run_workload(const Workload& workload, SimCounters* counters = nullptr);
// A smaller workload that still fails, and its description as code.
Workload shrink(Workload workload);
std::string describe(const Workload& workload);

}  // namespace quire
