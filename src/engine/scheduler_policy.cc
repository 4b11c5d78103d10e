// The scheduler's memory policies other than paged (engine/policies.h): contiguous regions from a
// buddy allocator, and no KV kept at all.
//
// A reserved region never runs out after admission, so max, pow2 and oracle preempt nobody; grow
// and off may. The members of a group have a region each: whoever computed the prompt is copied by
// the others at the next step (copy_sources), because a step's copies come before what it computes.
#include <algorithm>

#include "base/check.h"
#include "base/mutants.h"
#include "engine/scheduler.h"

namespace quire {

int Scheduler::tokens_to_reserve(const Sequence& seq) const {
  return reservation_tokens(config_, seq.num_tokens(), seq.num_prompt, seq.expected_output);
}

int Scheduler::reserved_blocks(const Sequence& seq) const {
  if (!is_contiguous(config_.kv_policy) || config_.kv_policy == KvPolicy::kGrow) {
    return seq.table.size();
  }
  return std::min(seq.table.size(), num_blocks_for(tokens_to_reserve(seq), pool_.block_size()));
}

// Regions for all members of a waiting group, or none and false.
bool Scheduler::reserve_regions(SequenceId first) {
  if (!reserve_region(sequences_[first])) return false;
  for (SequenceId id : sequences_[first].unforked) {
    if (reserve_region(sequences_[id])) continue;
    release_blocks(sequences_[first]);
    for (SequenceId other : sequences_[first].unforked) release_blocks(sequences_[other]);
    return false;
  }
  return true;
}

bool Scheduler::reserve_region(Sequence& seq) {
  const int count = num_blocks_for(tokens_to_reserve(seq), pool_.block_size());
  const bool exact = config_.kv_policy == KvPolicy::kGrow;
  const BlockId region = exact ? regions_.allocate_exactly(count) : regions_.allocate(count);
  if (region == kNoBlock) return false;
  seq.table.append_region(pool_, region, exact ? count : BuddyAllocator::rounded(count));
  return true;
}

bool Scheduler::admit_contiguous(SequenceId first, ScheduledBatch* batch, Budget* budget) {
  if (!reserve_regions(first)) return false;
  for (SequenceId id : sequences_[first].unforked) {
    sequences_[id].state = SequenceState::kRunning;
  }
  found_.clear();
  start(first, batch, budget);
  return true;
}

// Where the tokens of this step need another block: a new region for all of it, and a copy of what
// is computed. False if there is none; members that have theirs already keep it.
bool Scheduler::grow_regions(GroupRange group, ScheduledBatch* batch) {
  if (config_.kv_policy != KvPolicy::kGrow) return true;
  for (size_t i = group.begin; i < group.end; ++i) {
    Sequence& seq = sequences_[running_[i]];
    const int wanted =
        num_blocks_for(seq.num_computed + counts_[i - group.begin], pool_.block_size());
    if (wanted <= seq.table.size()) continue;
    const BlockId region = regions_.allocate_exactly(wanted);
    if (region == kNoBlock) return false;
    const int num_written = num_blocks_for(seq.num_computed, pool_.block_size());
    const int num_copied = mutant("simulation_grow_copies_too_little") ? 1 : num_written;
    for (int b = 0; b < num_copied; ++b) batch->copies.push_back({seq.table[b], region + b});
    release_blocks(seq);
    seq.table.append_region(pool_, region, wanted);
  }
  return true;
}

// What precedes a step: members that have just forked copy the prompt; without a cache everything
// that a launched step computes is forgotten, as it is after the last commit.
void Scheduler::prepare_policy(ScheduledBatch* batch) {
  if (config_.kv_policy == KvPolicy::kPaged) return;
  for (SequenceId id : running_) {
    Sequence& seq = sequences_[id];
    if (config_.kv_policy == KvPolicy::kOff) {
      release_blocks(seq);
      seq.num_computed = 0;
      continue;
    }
    for (size_t b = 0; b < seq.copy_sources.size(); ++b) {
      batch->copies.push_back({seq.copy_sources[b], seq.table[static_cast<int>(b)]});
    }
    seq.copy_sources.clear();
  }
}

void Scheduler::release_blocks(Sequence& seq) {
  const bool has_region = is_contiguous(config_.kv_policy) && seq.table.size() > 0;
  if (has_region && !mutant("model_check_region_is_lost")) {
    regions_.free(seq.table[0], seq.table.size());
  }
  seq.table.release(pool_);
  seq.copy_sources.clear();
}

// A member of a group goes on from where `source` stands, the end of the prompt.
void Scheduler::take_over_prompt(Sequence& seq, const Sequence& source) {
  seq.num_computed = source.num_computed;
  if (!is_contiguous(config_.kv_policy)) {
    seq.table.fork(pool_, source.table);
    seq.num_stored_blocks = source.num_stored_blocks;
    return;
  }
  const auto blocks =
      source.table.blocks().first(num_blocks_for(source.num_computed, pool_.block_size()));
  seq.copy_sources.assign(blocks.begin(), blocks.end());
}

bool Scheduler::head_waits_for_memory() const {
  const bool is_batch_closed = !takes_another_request() && !running_.empty();
  if (waiting_.empty() || is_batch_closed) return false;
  const Sequence& seq = sequences_[waiting_.front()];
  if (!may_be_admitted(seq)) return false;
  if (!is_contiguous(config_.kv_policy)) {
    // Cached blocks that it would find again are not counted: an estimate from above.
    return blocks_missing(seq) > pool_.num_available();
  }
  return regions_.largest_free() < num_blocks_for(tokens_to_reserve(seq), pool_.block_size());
}

}  // namespace quire
