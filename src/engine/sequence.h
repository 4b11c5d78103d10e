// One sequence of tokens on its way through the engine. There are no phases: a sequence has tokens,
// of which some are computed, and every step lets the second number catch up with the first.
//
// The n answers to one prompt are a group of sequences. The first computes the prompt while the
// others wait in its `unforked`; then they become second holders of its blocks (fork) and go on by
// themselves. A block that several hold is copied by whoever must write to it first.
//
// The beams of a beam search are a group, too. They sample in the same step, and then the scheduler
// makes each the continuation of one of them (scheduler_beams.cc).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "kv/block_table.h"

namespace quire {

using SequenceId = int32_t;  // an index, used again after the sequence is gone

// What the scheduler needs to know of a request.
struct SequenceSpec {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  std::vector<int32_t> eos_token_ids;
  std::string cache_salt;
  // Logits of every prompt position are wanted (prompt_logprobs, logits_tap), not of the last one
  // only.
  bool wants_all_rows = false;
  double submit_time = 0;  // seconds, by the clock that schedule() is given
};

enum class SequenceState : uint8_t { kUnused, kWaiting, kRunning, kFinished };

struct Sequence {
  SequenceState state = SequenceState::kUnused;
  FinishReason finish_reason = FinishReason::kNone;
  bool wants_all_rows = false;
  std::optional<int32_t> stop_token;
  std::optional<double> score;  // of a beam search's answer
  double submit_time = 0;
  uint64_t arrival = 0;      // order of arrival; the members of a group have the same
  int32_t sample_index = 0;  // in [0, n)
  // Members of the group that will share this one's blocks once the prompt is computed.
  std::vector<SequenceId> unforked;
  SamplingParams sampling;
  std::vector<int32_t> end_tokens;  // stop_token_ids, and the model's unless ignore_eos
  int max_output = 0;               // max_tokens, or less where max_model_len ends it
  int expected_output = 0;          // expected_output_tokens, or max_output

  std::vector<int32_t> tokens;  // prompt, then output
  int num_prompt = 0;
  int num_pending = 0;    // sampled in a launched step, value not committed yet
  int num_computed = 0;   // tokens whose KV is computed or launched
  int num_rows_done = 0;  // positions whose logits were asked for, with wants_all_rows
  int num_in_flight = 0;  // launched, uncommitted steps that contain it

  int32_t slot = -1;          // of the runner's and the sampler's state, while running
  bool is_announced = false;  // the runner has been told what the slot holds
  BlockId root = kNoBlock;
  BlockTable table;
  std::vector<BlockId> copy_sources;   // contiguous policies: blocks of the prompt's KV, to be
                                       // copied into `table` before the next step
  BlockTable host_table;               // while swapped out: where its KV is in the host pool
  bool is_swapped = false;             // num_computed tokens are in host_table, none in table
  std::vector<uint64_t> block_hashes;  // of the full blocks of `tokens`
  int num_stored_blocks = 0;           // leading blocks of `table` known to the prefix cache
  int num_cached_tokens = 0;           // prompt tokens found in the cache at first admission
  int num_preemptions = 0;

  bool is_beam() const { return sampling.is_beam_search(); }
  int num_tokens() const { return static_cast<int>(tokens.size()) + num_pending; }
  int num_output() const { return static_cast<int>(tokens.size()) - num_prompt; }
  bool operator==(const Sequence&) const = default;
  uint64_t state_hash() const;
};

}  // namespace quire
