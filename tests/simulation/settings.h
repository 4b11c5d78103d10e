// A workload's limits, as the engine's parts take them.
#pragma once

#include "engine/model_runner.h"
#include "engine/scheduler.h"
#include "simulation/workload.h"

namespace quire {

inline RunnerInfo runner_info(const Workload& w) {
  RunnerInfo info;
  info.num_blocks = w.num_blocks;
  info.block_size = w.block_size;
  info.vocab_size = w.vocab_size;
  info.max_model_len = w.max_model_len;
  info.max_logit_rows = w.max_num_seqs + w.extra_rows;
  info.max_in_flight = w.depth;
  return info;
}

inline SchedulerConfig scheduler_config(const Workload& w) {
  SchedulerConfig config{w.max_num_seqs,
                         w.max_num_batched_tokens,
                         w.max_model_len,
                         w.long_prefill_token_threshold,
                         w.max_num_seqs + w.extra_rows,
                         w.enable_prefix_caching,
                         w.num_host_blocks > 0 ? PreemptionMode::kSwap : PreemptionMode::kRecompute,
                         w.num_host_blocks};
  config.kv_policy = w.kv_policy;
  config.batching = w.batching;
  config.batch_size = w.batch_size;
  config.batch_window = w.batch_window;
  return config;
}

}  // namespace quire
