// The scheduler as a value: hashes by which a model checker recognises states it has seen.
#include "base/hash.h"
#include "engine/scheduler.h"

namespace quire {

uint64_t Sequence::state_hash() const {
  uint64_t h = hash_tokens(static_cast<uint64_t>(state), tokens);
  h = hash_combine(h, arrival);
  h = hash_combine(h, (uint64_t{static_cast<uint32_t>(num_computed)} << 32) | num_pending);
  h = hash_combine(h, (uint64_t{static_cast<uint32_t>(num_in_flight)} << 32) | num_rows_done);
  h = hash_combine(h, (uint64_t{static_cast<uint32_t>(num_preemptions)} << 32) | num_prompt);
  h = hash_combine(h, sample_index);
  h = hash_tokens(h, unforked);
  h = hash_tokens(h, copy_sources);
  h = hash_combine(hash_tokens(h, host_table.blocks()), is_swapped);
  return hash_tokens(h, table.blocks());
}

uint64_t Scheduler::state_hash() const {
  uint64_t h = hash_combine(pool_.state_hash(), host_pool_.state_hash());
  if (regions_.num_blocks() > 0) h = hash_combine(h, regions_.state_hash());
  h = hash_combine(h, batch_places_);
  for (const Sequence& seq : sequences_) h = hash_combine(h, seq.state_hash());
  for (SequenceId id : running_) h = hash_combine(h, id);
  h = hash_combine(h, running_.size());
  for (SequenceId id : waiting_) h = hash_combine(h, id);
  for (const BeamGroup& group : beam_groups_) {
    h = hash_combine(hash_tokens(h, group.beams), group.search.state_hash());
  }
  return h;
}

}  // namespace quire
