#include "engine/scheduled_batch.h"

namespace quire {

void ScheduledBatch::clear() {
  if (mutant("allocation_every_step")) *this = {};
  swap_out.clear();
  swap_in.clear();
  copies.clear();
  new_sequences.clear();
  sequences.clear();
  tokens.clear();
  block_ids.clear();
  logit_rows.clear();
}

void ScheduledBatch::reserve(int num_sequences, int num_tokens, int num_rows, int num_blocks) {
  sequences.reserve(num_sequences);
  tokens.reserve(num_tokens);
  logit_rows.reserve(num_rows);
  block_ids.reserve(num_blocks);
}

void StepResult::clear(int num_sequences) {
  token_start.assign(num_sequences + 1, 0);
  tokens.clear();
  logprobs.resize(num_sequences);
  for (SequenceLogprobs& l : logprobs) {
    l.sampled.clear();
    l.prompt.clear();
  }
  beam_candidates.resize(num_sequences);
  for (auto& candidates : beam_candidates) candidates.clear();
  logits = {};
}

}  // namespace quire
