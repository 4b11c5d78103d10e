// Runs prompts through the shipping Scheduler and CpuModelRunner in one thread, with settings that
// must not matter, and keeps the bits of every logit row.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine_config.h"
#include "engine/scheduler.h"
#include "model/model.h"

namespace quire::testing {

struct ExactSettings {
  std::string isa;
  std::string activations = "int16";
  std::string kv_cache_dtype = "auto";
  std::string fusion = "on";
  int num_threads = 1;
  int block_size = 16;
  int chunk = 0;             // most tokens of one sequence in a step; 0: all
  int num_kv_tokens = 8192;  // size of the pool
  int max_num_seqs = 32;
  bool prefix_caching = false;
  bool all_rows = true;        // logits of every position, else of sampled ones only
  bool one_at_a_time = false;  // each prompt runs alone
  int rounds = 1;              // the prompts again after they have finished, with the same pool
  int max_tokens = 8;
  PreemptionMode preemption_mode = PreemptionMode::kRecompute;
  // With more than one, answers are drawn, not greedy; those to one prompt are a group, or, if
  // `separate`, requests of their own that draw alike. Prompt p's answer i counts as prompt
  // p * num_answers + i.
  int num_answers = 1;
  bool separate = false;
  uint64_t arrival_seed = 0;  // not 0: prompts come at random steps
};

// (prompt, position) -> hash of the row's bits. A row that comes twice must be the same.
using LogitBits = std::map<std::pair<int, int>, uint64_t>;

struct ExactRun {
  LogitBits bits;
  std::vector<std::vector<int32_t>> outputs;
  SchedulerStats stats;
  bool consistent = true;  // no row came with two values
};

ExactRun run_exactly(std::shared_ptr<const Model> model,
                     const std::vector<std::vector<int32_t>>& prompts,
                     const ExactSettings& settings);

// Names the first row of `run` that differs from `reference` or that it lacks; empty if none.
std::string first_difference(const ExactRun& run, const ExactRun& reference);

}  // namespace quire::testing
