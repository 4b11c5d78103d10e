// One experiment: the shipping Scheduler with its BlockPool and policies, and a clock that its
// steps advance. Nobody waits: when nothing can run, the clock jumps to the next arrival.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "apps/paper/platform.h"
#include "apps/paper/workload.h"

namespace quire {

// FasterTransformer, Hugging Face, Orca (Max), (Pow2), (Oracle), paged.
std::vector<PaperSystem> paper_systems(const PaperSizes& sizes);
PaperSystem paged_system();
PaperSystem orca_oracle_system();

// Shares of the KV memory, averaged over the time in which a request waits for memory.
struct KvShares {
  double seconds = 0;
  double tokens = 0, reserved = 0, internal = 0, external = 0, ended = 0, free = 0;
};

struct PaperOutcome {
  double seconds = 0;              // of the experiment's clock
  int64_t num_finished = 0;        // requests
  double normalised_latency = 0;   // mean of end-to-end latency / output tokens, s per token
  double requests_per_second = 0;  // finished
  double mean_running = 0;         // requests, averaged over time
  double blocks_saved = 0;         // by sharing: 1 - used / what unshared tables would hold
  KvShares kv;
  SchedulerStats stats;
};

// The error is the machine's.
Result<PaperOutcome> run_experiment(const PaperPlatform& platform,
                                    const PaperRun& run,
                                    std::span<const PaperRequest> requests);

}  // namespace quire
