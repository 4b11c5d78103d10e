// Computes scheduled batches. The only thing the engine knows of models and devices.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "engine/scheduled_batch.h"

namespace quire {

struct RunnerInfo {
  int num_blocks = 0;                 // of the KV pool
  int block_size = 0;                 // tokens
  int vocab_size = 0;                 // V
  int max_model_len = 0;              // the model's context length
  int max_logit_rows = 0;             // R of one step, at least max_num_seqs + 1
  int num_host_blocks = 0;            // of the pool that blocks are swapped out to
  double swap_seconds_per_block = 0;  // out and back in again, measured
  int max_in_flight = 1;  // 2: launch() returns before the step is done, so that steps overlap
  std::vector<int32_t> eos_token_ids;
};

// Virtual once per step. Used by one thread.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual const RunnerInfo& info() const = 0;
  // Starts a step. At most info().max_in_flight steps are launched and not collected.
  virtual Status launch(const ScheduledBatch& batch) = 0;
  // Waits for the oldest launched step.
  virtual Status collect(StepResult* result) = 0;
};

}  // namespace quire
