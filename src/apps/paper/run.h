// One experiment in model-time: the shipping Scheduler with its BlockPool and policies, driven by a
// virtual clock that a cost model advances.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "apps/paper/cost.h"
#include "apps/paper/workload.h"
#include "engine/scheduler.h"

namespace quire {

// A system of the paper, as policies.
struct PaperSystem {
  std::string name, label;
  KvPolicy kv_policy = KvPolicy::kPaged;
  Batching batching = Batching::kContinuous;
  int batch_size = 1;
};
// FasterTransformer, Hugging Face, Orca (Max), (Pow2), (Oracle), paged.
std::vector<PaperSystem> paper_systems(const CostModel& cost);
PaperSystem paged_system();
PaperSystem orca_oracle_system();

struct PaperRun {
  PaperSystem system;
  int block_size = 16;
  bool prefix_caching = false;
  bool swaps = false;  // preempted groups go to a host pool of the KV pool's size
  bool measures_memory = false;
  double beam_certainty = 0;  // share of a beam's steps that only one token can follow
  uint64_t seed = 1;          // of the beams' candidates
  double stop_at = std::numeric_limits<double>::infinity();  // seconds
};

// Shares of the KV memory, averaged over the time in which a request waits for memory.
struct KvShares {
  double seconds = 0;
  double tokens = 0, reserved = 0, internal = 0, external = 0, ended = 0, free = 0;
};

struct PaperOutcome {
  double seconds = 0;              // of virtual time
  int64_t num_finished = 0;        // requests
  double normalised_latency = 0;   // mean of end-to-end latency / output tokens, s per token
  double requests_per_second = 0;  // finished
  double mean_running = 0;         // requests, averaged over time
  double blocks_saved = 0;         // by sharing: 1 - used / what unshared tables would hold
  KvShares kv;
  SchedulerStats stats;
};

PaperOutcome run_in_model_time(const CostModel& cost,
                               const PaperRun& run,
                               std::span<const PaperRequest> requests);

}  // namespace quire
