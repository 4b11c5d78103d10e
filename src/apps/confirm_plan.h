// What a plan says against what a process takes: one dummy step of the largest size.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "frontend/llm.h"

namespace quire {

struct PlanConfirmation {
  int num_tokens = 0, num_seqs = 0;  // of the step, and of the one after it
  int64_t planned_bytes = 0;         // of this process at its peak
  int64_t measured_bytes = 0;

  // 1 % and 4 MiB: the heap's share of it depends on what ran before.
  bool holds() const;
};

// Loads the model and computes a prompt of max_num_batched_tokens tokens in one step (or of as many
// as a sequence of the plan may have; the step is planned for those then), then a step of
// max_num_seqs sequences, or of as many as the plan's KV pool holds. The pool is as large as they
// need, so that all of it is written; the rows of logits that only prompt_logprobs uses are not,
// and not counted. Once in a process.
Result<PlanConfirmation> confirm_plan(const LlmConfig& config, const LlmPlan& plan);

}  // namespace quire
