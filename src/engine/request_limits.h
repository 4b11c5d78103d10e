// What a request may ask for: a value that the scheduler decides by, and, without it, whoever
// submits a request from another thread.
#pragma once

#include "base/status.h"
#include "engine/request.h"
#include "engine/scheduler_config.h"

namespace quire {

struct RequestLimits {
  SchedulerConfig scheduler;
  int num_blocks = 0, block_size = 0;  // of the KV pool

  // Refuses what could never finish, with the numbers: an empty prompt, one longer than
  // max_model_len, a prompt whose output would not fit in the whole pool.
  Status check(int num_prompt_tokens, const SamplingParams& sampling) const;

 private:
  Status check_pool(int num_prompt_tokens, const SamplingParams& sampling) const;
  Status check_policy(int num_prompt_tokens, const SamplingParams& sampling) const;
};

// Tokens of the region that a sequence of `num_tokens` gets at admission, by contiguous policies.
int reservation_tokens(const SchedulerConfig& scheduler,
                       int num_tokens,
                       int num_prompt,
                       int expected_output);

}  // namespace quire
