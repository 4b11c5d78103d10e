// What the experiments of the papers run on: the paper's machine in model-time (model_time.h), or a
// model on this CPU (measured.h).
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/scheduler.h"

namespace quire {

// A system of the paper, as policies.
struct PaperSystem {
  std::string name, label;
  KvPolicy kv_policy = KvPolicy::kPaged;
  Batching batching = Batching::kContinuous;
  int batch_size = 1;
  double batch_window = 0;  // seconds that a dynamic batch waits for more
};

struct PaperRun {
  PaperSystem system;
  int block_size = 0;  // tokens; 0: the platform's
  bool prefix_caching = false;
  bool swaps = false;  // preempted groups go to a host pool of the KV pool's size
  bool measures_memory = false;
  double beam_certainty =
      0;              // in model-time: share of a beam's steps that only one token can follow
  uint64_t seed = 1;  // of the beams' candidates
  double stop_at = std::numeric_limits<double>::infinity();  // seconds
};

struct PaperSizes {
  int max_model_len = 0, max_num_seqs = 0, max_num_batched_tokens = 0;
  int block_size = 0;     // tokens, where the block size is not what is asked
  int64_t kv_tokens = 0;  // that the KV memory holds
  int length_scale = 1;   // prompts and answers are so many times shorter than the paper's
  int num_blocks(int tokens_a_block) const { return static_cast<int>(kv_tokens / tokens_a_block); }
};

// Computes the steps of one run.
class PaperMachine {
 public:
  virtual ~PaperMachine() = default;
  // A step of `scheduler`'s sequences: the seconds it took.
  virtual Result<double> compute(const Scheduler& scheduler,
                                 const ScheduledBatch& batch,
                                 StepResult* result) = 0;
  // Of a prompt of so many tokens in one step; in model-time without the step's constant.
  virtual Result<double> seconds_to_prefill(int num_tokens) = 0;
  // Of blocks copied to the host and back again.
  virtual double seconds_to_swap(int num_blocks) = 0;
};

class PaperPlatform {
 public:
  virtual ~PaperPlatform() = default;
  virtual const std::string& name() const = 0;
  virtual bool is_simulated() const = 0;
  virtual const PaperSizes& sizes() const = 0;
  // Token `position` of a prompt; prompts of different numbers differ.
  virtual int32_t token(int prompt, int position) const = 0;
  virtual Result<std::unique_ptr<PaperMachine>> machine(const PaperRun& run) const = 0;

  int block_size(const PaperRun& run) const {
    return run.block_size > 0 ? run.block_size : sizes().block_size;
  }
};

}  // namespace quire
