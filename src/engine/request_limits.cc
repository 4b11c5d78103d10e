#include "engine/request_limits.h"

#include <algorithm>
#include <bit>
#include <string>

#include "kv/block_table.h"
#include "kv/buddy_allocator.h"

namespace quire {

Status RequestLimits::check(int num_prompt_tokens, const SamplingParams& sampling) const {
  const int max_tokens = sampling.max_tokens;
  if (num_prompt_tokens < 1) {
    return invalid_argument("the prompt must have at least 1 token, got 0");
  }
  const int room = scheduler.max_model_len - num_prompt_tokens;
  if (room < std::min(1, max_tokens)) {
    return invalid_argument("the prompt has " + std::to_string(num_prompt_tokens) +
                            " tokens, but max_model_len is " +
                            std::to_string(scheduler.max_model_len) +
                            " tokens of prompt and output together: shorten the prompt or raise "
                            "--max-model-len");
  }
  const std::string name = sampling.is_beam_search() ? "beam_width" : "n";
  const int num_sequences = sampling.num_sequences();
  const std::string what = name + " is " + std::to_string(num_sequences);
  if (num_sequences > scheduler.max_num_seqs) {
    return invalid_argument(
        what + ", but max_num_seqs is " + std::to_string(scheduler.max_num_seqs) +
        ", and answers to one prompt run together: lower " + name + " or raise --max-num-seqs");
  }
  if (sampling.is_beam_search() && num_sequences > scheduler.max_num_batched_tokens) {
    return invalid_argument(what + ", but max_num_batched_tokens is " +
                            std::to_string(scheduler.max_num_batched_tokens) +
                            ", and all beams run in one step: lower beam_width or raise "
                            "--max-num-batched-tokens");
  }
  QUIRE_RETURN_IF_ERROR(check_policy(num_prompt_tokens, sampling));
  return is_contiguous(scheduler.kv_policy) ? Status() : check_pool(num_prompt_tokens, sampling);
}

// Does it fit into the whole pool, block by block?
Status RequestLimits::check_pool(int num_prompt_tokens, const SamplingParams& sampling) const {
  const int max_tokens = sampling.max_tokens, num_sequences = sampling.num_sequences();
  const std::string name = sampling.is_beam_search() ? "beam_width" : "n";
  const int room = scheduler.max_model_len - num_prompt_tokens;
  // The last token is sampled and never computed. Full blocks of the prompt are shared.
  const int64_t computed = int64_t{num_prompt_tokens} + std::max(0, std::min(max_tokens, room) - 1);
  const bool shares = num_sequences > 1 && scheduler.kv_policy == KvPolicy::kPaged;
  const int64_t shared = shares ? num_prompt_tokens / block_size : 0;
  const int64_t blocks_of_one = (computed + block_size - 1) / block_size;
  const int64_t blocks = shared + num_sequences * (blocks_of_one - shared);
  if (blocks > num_blocks) {
    return invalid_argument(
        "the prompt of " + std::to_string(num_prompt_tokens) + " tokens and max_tokens " +
        std::to_string(max_tokens) +
        (num_sequences == 1 ? ""
                            : ", " + name + " = " + std::to_string(num_sequences) + " times,") +
        " need " + std::to_string(blocks) + " KV blocks, but the whole pool has " +
        std::to_string(num_blocks) + " blocks of " + std::to_string(block_size) +
        " tokens: shorten the prompt, lower max_tokens or raise --kv-cache-memory-bytes or "
        "--gpu-memory-utilization");
  }
  return Status();
}

int reservation_tokens(const SchedulerConfig& scheduler,
                       int num_tokens,
                       int num_prompt,
                       int expected_output) {
  switch (scheduler.kv_policy) {
    case KvPolicy::kMax:
      return scheduler.max_model_len;
    case KvPolicy::kPow2: {
      const int rounded = static_cast<int>(std::bit_ceil(static_cast<unsigned>(expected_output)));
      return std::min(num_prompt + rounded, scheduler.max_model_len);
    }
    case KvPolicy::kOracle:
      return num_prompt + expected_output;
    default:
      return num_tokens;
  }
}

// Does it fit into an empty pool as regions, or, without a cache, into a step?
Status RequestLimits::check_policy(int num_prompt, const SamplingParams& sampling) const {
  if (scheduler.kv_policy == KvPolicy::kPaged) return Status();
  if (sampling.is_beam_search()) {
    return invalid_argument("beam_width is " + std::to_string(sampling.beam_width) +
                            ", but beams share blocks, which --kv-policy " +
                            std::string(name_of(scheduler.kv_policy)) +
                            " does not: say --kv-policy paged");
  }
  const int room = scheduler.max_model_len - num_prompt;
  int output = std::min(sampling.max_tokens, room);
  const int expected = std::min(sampling.expected_output_tokens.value_or(output), output);
  if (knows_output(scheduler.kv_policy)) output = expected;
  const int computed = num_prompt + std::max(0, output - 1);  // the last token is never computed
  const std::string policy = "--kv-policy " + std::string(name_of(scheduler.kv_policy));
  if (scheduler.kv_policy == KvPolicy::kOff) {
    if (computed > scheduler.max_num_batched_tokens) {
      return invalid_argument(
          policy + " computes all " + std::to_string(computed) +
          " tokens of prompt and output in one step, but " + "--max-num-batched-tokens is " +
          std::to_string(scheduler.max_num_batched_tokens) + ": raise it or lower max_tokens");
    }
    return Status();
  }
  const int tokens = reservation_tokens(scheduler, computed, num_prompt, expected);
  const int blocks = num_blocks_for(tokens, block_size);
  const int num_regions = num_blocks / BuddyAllocator::rounded(blocks);
  // To grow, an answer needs its next region beside the one it leaves.
  const bool grows =
      scheduler.kv_policy == KvPolicy::kGrow && blocks > num_blocks_for(num_prompt, block_size);
  const int wanted = sampling.n + (grows ? 1 : 0);
  if (wanted <= num_regions) return Status();
  return invalid_argument(
      policy + " takes up to " + std::to_string(tokens) + " tokens (" +
      std::to_string(BuddyAllocator::rounded(blocks)) + " consecutive KV blocks) for an answer, " +
      std::to_string(wanted) + " times for n = " + std::to_string(sampling.n) +
      (grows ? " and a copy" : "") + ", and the pool of " + std::to_string(num_blocks) +
      " blocks holds " + std::to_string(num_regions) +
      " such regions: raise --kv-cache-memory-bytes or --gpu-memory-utilization, lower "
      "--max-model-len or max_tokens, or say --kv-policy paged");
}

}  // namespace quire
