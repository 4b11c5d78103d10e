// The group side of the scheduler: how the n answers to one prompt come to share its blocks, give
// them back together, and lose members.
#include <algorithm>

#include "base/check.h"
#include "base/mutants.h"
#include "engine/scheduler.h"

namespace quire {

Scheduler::GroupRange Scheduler::group_at(size_t begin) const {
  const uint64_t arrival = sequences_[running_[begin]].arrival;
  size_t end = begin + 1;
  while (end < running_.size() && sequences_[running_[end]].arrival == arrival) ++end;
  return {begin, end};
}

// counts_[i] = tokens that this step may compute of the group's i-th member.
void Scheduler::count_tokens(GroupRange group, Budget budget) {
  counts_.clear();
  for (size_t i = group.begin; i < group.end; ++i) {
    const Sequence& seq = sequences_[running_[i]];
    const int n = num_tokens_to_compute(seq, budget);
    counts_.push_back(n);
    budget.tokens -= n;
    budget.prompt_rows -= std::max(0, num_rows_of(seq, n) - 1);
  }
}

// Once the prompt is computed, or in this step's batch, the others become holders of its blocks and
// run behind the first; how many they are. In the step that computes the prompt's last row they
// draw their first token from it.
int Scheduler::fork_if_due(SequenceId first, ScheduledBatch* batch) {
  const Sequence& source = sequences_[first];
  if (source.unforked.empty() || source.num_computed < source.num_prompt) return 0;
  const std::vector<SequenceId> others = std::move(sequences_[first].unforked);
  sequences_[first].unforked.clear();
  const bool is_sampled_now = source.num_pending > 0;
  auto place = std::ranges::find(running_, first);
  for (SequenceId id : others) {
    Sequence& seq = sequences_[id];
    take_over_prompt(seq, source);
    seq.state = SequenceState::kRunning;
    place = running_.insert(place + 1, id);
    if (is_sampled_now) append_sample(id, *last_entry_of(first, *batch), batch);
  }
  return static_cast<int>(others.size());
}

const ScheduledSequence* Scheduler::last_entry_of(SequenceId id, const ScheduledBatch& batch) {
  const ScheduledSequence* found = nullptr;
  for (const ScheduledSequence& entry : batch.sequences) {
    if (entry.id == id) found = &entry;
  }
  QUIRE_CHECK(found != nullptr);
  return found;
}

// An entry without tokens of its own: one more draw from the last row of `source`.
void Scheduler::append_sample(SequenceId id, ScheduledSequence source, ScheduledBatch* batch) {
  Sequence& seq = sequences_[id];
  announce(seq, batch);
  ScheduledSequence entry{};
  entry.id = id;
  entry.epoch = seq.num_preemptions;
  entry.slot = seq.slot;
  entry.start = seq.num_computed;
  entry.first_token = source.first_token + source.num_tokens;
  entry.first_block = static_cast<int32_t>(batch->block_ids.size());
  entry.first_row = source.first_row + source.num_rows - 1;
  entry.num_rows = 1;
  entry.next_token = -1;
  entry.samples = true;
  batch->sequences.push_back(entry);
  ++seq.num_pending;
  ++seq.num_in_flight;
}

// The newest running group goes back to the head of the waiting line: its first member, with the
// others behind it, as when it came.
void Scheduler::preempt_newest_group(ScheduledBatch* batch) {
  size_t begin = running_.size() - 1;
  const uint64_t arrival = sequences_[running_[begin]].arrival;
  while (begin > 0 && sequences_[running_[begin - 1]].arrival == arrival) --begin;
  const std::span<const SequenceId> members = std::span(running_).subspan(begin);
  const bool swapped = should_swap(members) && swap_out(members, batch);
  Sequence& first = sequences_[members[0]];
  for (SequenceId id : first.unforked) give_up(sequences_[id]);
  if (!mutant("model_idle_beams_keep_slots")) {
    for (SequenceId id : idle_beams(first)) give_up(sequences_[id]);
  }
  for (SequenceId id : members) {
    give_up(sequences_[id]);
    sequences_[id].is_swapped = swapped;
    if (!swapped && !mutant("simulation_preempt_keeps_computed")) sequences_[id].num_computed = 0;
  }
  first.unforked.insert(first.unforked.begin(), members.begin() + 1, members.end());
  waiting_.push_front(members[0]);
  running_.resize(begin);
  ++stats_.num_preemptions;
}

void Scheduler::give_up(Sequence& seq) {
  seq.state = SequenceState::kWaiting;
  release_blocks(seq);
  seq.num_stored_blocks = 0;
  unused_slots_.push_back(seq.slot);
  seq.slot = -1;
  seq.is_announced = false;
  ++seq.num_preemptions;
}

// The next member takes over what the first has computed of the prompt, its place, and the others.
void Scheduler::promote(SequenceId first) {
  Sequence& old = sequences_[first];
  const SequenceId id = old.unforked.front();
  Sequence& seq = sequences_[id];
  seq.unforked.assign(old.unforked.begin() + 1, old.unforked.end());
  old.unforked.clear();
  seq.wants_all_rows = old.wants_all_rows;
  seq.num_rows_done = old.num_rows_done;
  seq.num_cached_tokens = old.num_cached_tokens;
  seq.state = old.state;
  if (is_contiguous(config_.kv_policy)) {  // each has a region
    if (!mutant("model_check_promoted_keeps_its_region")) std::swap(seq.table, old.table);
    seq.num_computed = old.num_computed;
  } else if (!seq.is_swapped) {
    seq.table.fork(pool_, old.table);
    seq.host_table.fork(host_pool_, old.host_table);
    seq.is_swapped = old.is_swapped;
    seq.num_computed = old.num_computed;
    seq.num_stored_blocks = old.num_stored_blocks;
  }
  std::ranges::replace(running_, first, id);
  std::ranges::replace(waiting_, first, id);
}

// Takes an open sequence out of the lines.
void Scheduler::leave(SequenceId id) {
  if (!sequences_[id].unforked.empty()) return promote(id);
  std::erase(running_, id);
  std::erase(waiting_, id);
  for (Sequence& other : sequences_) {
    if (other.arrival == sequences_[id].arrival) std::erase(other.unforked, id);
  }
}

}  // namespace quire
