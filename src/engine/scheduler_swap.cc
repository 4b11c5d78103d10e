// Preemption by swapping: a group's blocks go to the host pool and come back, each once, however
// many members hold it. The batch lists what the runner must copy.
#include <algorithm>

#include "base/check.h"
#include "engine/scheduler.h"

namespace quire {

// kAuto: is copying the members' blocks out and back cheaper than computing their tokens again?
// What they share counts once for each, on both sides.
bool Scheduler::should_swap(std::span<const SequenceId> members) const {
  if (config_.preemption_mode != PreemptionMode::kAuto) {
    return config_.preemption_mode == PreemptionMode::kSwap;
  }
  double copying = 0, computing = 0;
  for (SequenceId id : members) {
    copying += sequences_[id].table.size() * config_.swap_seconds_per_block;
    computing += sequences_[id].num_computed * recompute_cost_;
  }
  return copying < computing;
}

// Holds every block of the members in the host pool as well, if all of them fit.
bool Scheduler::swap_out(std::span<const SequenceId> members, ScheduledBatch* batch) {
  int wanted = 0;
  for (SequenceId id : members) {
    for (BlockId block : sequences_[id].table.blocks()) {
      wanted += place_of_[block] == kNoBlock;
      place_of_[block] = 0;
    }
  }
  for (SequenceId id : members) {
    for (BlockId block : sequences_[id].table.blocks()) place_of_[block] = kNoBlock;
  }
  if (wanted > host_pool_.num_available()) return false;
  for (SequenceId id : members) {
    Sequence& seq = sequences_[id];
    for (BlockId block : seq.table.blocks()) {
      BlockId& place = place_of_[block];
      if (place == kNoBlock) {
        place = host_pool_.allocate();
        batch->swap_out.push_back({block, place});
        pool_.report({.kind = KvEventKind::kSwappedOut, .block = block, .other = place});
        seq.host_table.append_owned(place);
      } else {
        seq.host_table.append_shared(host_pool_, place);
      }
    }
  }
  for (SequenceId id : members) {
    for (BlockId block : sequences_[id].table.blocks()) place_of_[block] = kNoBlock;
  }
  stats_.num_swapped_out += wanted;
  return true;
}

// Blocks of the pool for all tokens of swapped members: one for each of the host pool that they
// hold, copies of those that several will write to, and new ones.
int Scheduler::blocks_to_swap_in(std::span<const SequenceId> members) const {
  const int block_size = pool_.block_size();
  int wanted = 0;
  std::vector<BlockId> seen;
  for (SequenceId id : members) {
    const Sequence& seq = sequences_[id];
    const int num_full = seq.num_computed / block_size;
    for (int i = 0; i < seq.host_table.size(); ++i) {
      const bool is_new = std::ranges::find(seen, seq.host_table[i]) == seen.end();
      if (is_new) seen.push_back(seq.host_table[i]);
      wanted += is_new || i >= num_full;
    }
    wanted += std::max(0, num_blocks_for(seq.num_tokens(), block_size) - seq.host_table.size());
  }
  return wanted;
}

bool Scheduler::admit_swapped(SequenceId first, ScheduledBatch* batch, Budget* budget) {
  Sequence& seq = sequences_[first];
  std::vector<SequenceId> members = {first}, rest;
  for (SequenceId id : seq.unforked) (sequences_[id].is_swapped ? members : rest).push_back(id);
  if (blocks_to_swap_in(members) + budget->outstanding_blocks > pool_.num_available()) return false;
  const size_t place = running_.size();
  for (SequenceId id : seq.unforked) take_slot(sequences_[id]);
  for (SequenceId id : idle_beams(seq)) take_slot(sequences_[id]);
  take_slot(seq);
  waiting_.pop_front();
  for (SequenceId id : members) {
    swap_in(sequences_[id], batch);
    running_.push_back(id);
  }
  for (SequenceId id : members) sequences_[id].host_table.release(host_pool_);
  for (const BlockCopy& copy : batch->swap_in) place_of_[copy.source] = kNoBlock;
  seq.unforked = std::move(rest);
  QUIRE_CHECK(schedule_group(group_at(place), batch, budget));
  fork_if_due(first, batch);
  return true;
}

void Scheduler::swap_in(Sequence& seq, ScheduledBatch* batch) {
  for (BlockId host : seq.host_table.blocks()) {
    BlockId& place = place_of_[host];
    if (place == kNoBlock) {
      place = pool_.allocate();
      batch->swap_in.push_back({host, place});
      pool_.report({.kind = KvEventKind::kSwappedIn, .block = place, .other = host});
      seq.table.append_owned(place);
      ++stats_.num_swapped_in;
    } else {
      seq.table.append_shared(pool_, place);
    }
  }
  seq.is_swapped = false;
  seq.state = SequenceState::kRunning;
}

}  // namespace quire
