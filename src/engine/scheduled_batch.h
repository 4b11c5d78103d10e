// What one step computes, and what came out. Plain data without pointers, so that it can be sent to
// other processes; the vectors keep their memory from step to step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/mutants.h"
#include "engine/beam_search.h"
#include "engine/request.h"
#include "engine/sequence.h"

namespace quire {

// In ScheduledBatch::tokens: the token that the same sequence sampled in the step before, whose
// value only the runner knows so far.
inline constexpr int32_t kPendingToken = -1;
// In StepResult::tokens: the logits had no maximum (NaN, or -inf everywhere).
inline constexpr int32_t kInvalidToken = -1;

// Positions [start, start + num_tokens) of one sequence.
struct ScheduledSequence {
  SequenceId id;
  int32_t epoch;  // the sequence's num_preemptions; commit sees by it what happened in between
  int32_t slot;   // in [0, max_num_seqs): of the state that the runner keeps while it runs
  int32_t start, num_tokens;
  int32_t
      num_unwritten;    // 1: the first token's KV is in a shared block; only its logits are wanted
  int32_t first_token;  // in ScheduledBatch::tokens
  int32_t first_block, num_blocks;  // in ScheduledBatch::block_ids
  int32_t first_row, num_rows;      // in ScheduledBatch::logit_rows: its last num_rows tokens, or
                                    // of only_samples() the row of another
  int32_t next_token;  // the token at position start + num_tokens where it is known, else -1
  bool samples;        // draw a token from the last row, or list a beam's candidates
  // Without tokens: one more answer to a prompt whose last row an entry before this one computes.
  bool only_samples() const { return num_tokens == 0; }
};

// A sequence that the runner sees for the first time, or again after a preemption.
struct NewSequence {
  int32_t slot;
  int32_t sample_index;     // which of the n answers: each draws from a generator of its own
  SamplingParams sampling;  // with a seed
  std::vector<int32_t> end_tokens;
  std::vector<int32_t> tokens;  // prompt and output so far
  int32_t num_prompt;
};

struct ScheduledBatch {
  // Before anything is computed, in this order:
  std::vector<BlockCopy> swap_out;  // a block of the pool to one of the host pool
  std::vector<BlockCopy> swap_in;   // and back
  std::vector<BlockCopy> copies;    // within the pool, one after another: copy-on-write
  std::vector<NewSequence> new_sequences;
  std::vector<ScheduledSequence> sequences;  // [S]
  std::vector<int32_t> tokens;               // [T]
  std::vector<BlockId> block_ids;            // the block tables, one after another
  std::vector<int32_t> logit_rows;           // [R] indices into tokens, increasing

  // A step may have nothing to compute and blocks to swap out or to copy.
  bool empty() const {
    const bool copies_nothing = swap_out.empty() && copies.empty();
    return sequences.empty() && (copies_nothing || mutant("model_check_drops_swap_only_step"));
  }
  std::span<const BlockId> blocks_of(const ScheduledSequence& s) const {
    return std::span(block_ids).subspan(s.first_block, s.num_blocks);
  }
  void clear();
  // Room for the largest step (unless sequences share many blocks): nothing once it is there.
  void reserve(int num_sequences, int num_tokens, int num_rows, int num_blocks);
};

// Where the KV of `position` lies in a sequence with these blocks: block * block_size + offset.
inline int64_t kv_slot(std::span<const BlockId> blocks, int position, int block_size) {
  if (mutant("engine_slot_off_by_one")) position += position % block_size + 1 < block_size;
  return int64_t{blocks[position / block_size]} * block_size + position % block_size;
}

// Logprobs of one sequence's step.
struct SequenceLogprobs {
  LogprobList sampled;
  std::vector<LogprobList> prompt;  // of its rows that lie before the prompt's last token
};

struct StepResult {
  // Sequence s of the batch drew tokens[token_start[s] .. token_start[s+1]).
  std::vector<int32_t> token_start;  // [S+1]
  std::vector<int32_t> tokens;
  std::vector<SequenceLogprobs> logprobs;  // [S]
  // [S] Of a beam, which draws no token: its likeliest next ones; none if the logits are not
  // finite.
  std::vector<std::vector<BeamCandidate>> beam_candidates;
  // [R, vocab_size] of host memory, valid until the next launch.
  std::span<const float> logits;
  int vocab_size = 0;

  std::span<const int32_t> tokens_of(int s) const {
    return std::span(tokens).subspan(token_start[s], token_start[s + 1] - token_start[s]);
  }
  std::span<const float> logits_row(int row) const {
    return logits.subspan(static_cast<size_t>(row) * vocab_size, vocab_size);
  }
  void clear(int num_sequences);
};

}  // namespace quire
