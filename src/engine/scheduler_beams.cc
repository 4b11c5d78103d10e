// The beam side of the scheduler. The first member of a group computes the prompt while the others
// are idle: they have no tokens of their own, hold no blocks and wait in no line, but have their
// slots. In every step in which the beams sample, all of them do; commit() then makes each member
// the continuation of one of them. A beam's first continuation keeps its sequence; further ones
// become second holders of its blocks, in the pool or, if it was swapped out meanwhile, in the host
// pool; a beam without continuation gives its blocks back at once and is idle.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/mutants.h"
#include "engine/scheduler.h"

namespace quire {

void Scheduler::open_beams(SequenceId first) {
  Sequence& seq = sequences_[first];
  BeamRules rules{seq.sampling.beam_width,
                  seq.sampling.length_penalty,
                  seq.sampling.early_stopping,
                  seq.max_output,
                  seq.sampling.min_tokens,
                  sorted_once(seq.end_tokens)};
  std::vector<SequenceId> members = {first};
  members.insert(members.end(), seq.unforked.begin(), seq.unforked.end());
  seq.unforked.clear();
  beam_groups_.push_back({seq.arrival, BeamSearch(std::move(rules)), std::move(members), {first}});
}

const BeamGroup& Scheduler::beam_group_of(const Sequence& seq) const {
  const auto found = std::ranges::find(beam_groups_, seq.arrival, &BeamGroup::arrival);
  QUIRE_CHECK(found != beam_groups_.end());
  return *found;
}

BeamGroup& Scheduler::beam_group_of(const Sequence& seq) {
  return const_cast<BeamGroup&>(std::as_const(*this).beam_group_of(seq));
}

// The members of the group of `seq` that are no beam now; none if it is no beam search.
std::vector<SequenceId> Scheduler::idle_beams(const Sequence& seq) const {
  if (!seq.is_beam()) return {};
  const BeamGroup& group = beam_group_of(seq);
  std::vector<SequenceId> idle;
  for (SequenceId id : group.members) {
    if (std::ranges::find(group.beams, id) == group.beams.end()) idle.push_back(id);
  }
  return idle;
}

// Takes from counts_ what would make some beams sample before others: unless all reach their last
// token in this step, none does. While they wait for the commit of a sample nobody knows who goes
// on.
void Scheduler::count_beam_tokens(GroupRange group, Budget budget) {
  const auto reaches_end = [&](size_t i) {
    const Sequence& seq = sequences_[running_[i]];
    return seq.num_pending == 0 && seq.num_computed + counts_[i - group.begin] == seq.num_tokens();
  };
  bool all_reach = true;
  for (size_t i = group.begin; i < group.end; ++i) all_reach &= reaches_end(i);
  if (all_reach || mutant("simulation_beams_sample_apart")) return;
  for (size_t i = group.begin; i < group.end; ++i) {
    const Sequence& seq = sequences_[running_[i]];
    const int before_last = seq.num_tokens() - 1 - seq.num_computed;
    const int n = std::min(num_tokens_to_compute(seq, budget), before_last);
    counts_[i - group.begin] = n;
    budget.tokens -= n;
  }
}

void Scheduler::commit_beams(const ScheduledBatch& batch,
                             const StepResult& result,
                             std::vector<CommittedSequence>* committed) {
  const auto& entries = batch.sequences;
  for (size_t i = 0; i < entries.size();) {
    const Sequence& seq = sequences_[entries[i].id];
    const uint64_t arrival = seq.arrival;
    const bool is_open =
        seq.state == SequenceState::kRunning || seq.state == SequenceState::kWaiting;
    if (is_open && seq.is_beam() && entries[i].samples) {
      advance_beams(static_cast<int>(i), batch, result, committed);
    }
    while (i < entries.size() && sequences_[entries[i].id].arrival == arrival) ++i;
  }
}

// The entries of the group's beams begin at `first_entry`.
void Scheduler::advance_beams(int first_entry,
                              const ScheduledBatch& batch,
                              const StepResult& result,
                              std::vector<CommittedSequence>* committed) {
  BeamGroup& group = beam_group_of(sequences_[batch.sequences[first_entry].id]);
  const int num_beams = static_cast<int>(group.beams.size());
  std::vector<std::span<const BeamCandidate>> candidates(num_beams);
  bool is_valid = true;
  for (int i = first_entry; i < first_entry + num_beams; ++i) {
    const ScheduledSequence& entry = batch.sequences.at(i);
    const auto beam = std::ranges::find(group.beams, entry.id);
    QUIRE_CHECK(entry.samples && beam != group.beams.end());
    candidates[beam - group.beams.begin()] = result.beam_candidates[i];
    is_valid &= !result.beam_candidates[i].empty();
    --sequences_[entry.id].num_pending;
  }
  std::vector<BeamSearch::Choice> choices;
  if (is_valid) choices = group.search.advance(candidates);
  if (choices.empty()) return finish_beams(group, is_valid, first_entry, committed);
  continue_beams(group, choices);
}

void Scheduler::continue_beams(BeamGroup& group, std::span<const BeamSearch::Choice> choices) {
  const SequenceState state = sequences_[group.beams[0]].state;
  std::vector<SequenceId> unused = group.members, beams(choices.size(), -1);
  for (size_t i = 0; i < choices.size(); ++i) {
    const SequenceId parent = group.beams[choices[i].parent];
    if (std::erase(unused, parent) > 0) beams[i] = parent;
  }
  for (SequenceId id : unused) retire_beam(id);
  for (size_t i = 0; i < choices.size(); ++i) {
    if (beams[i] >= 0) continue;
    beams[i] = unused.front();
    unused.erase(unused.begin());
    fork_beam(beams[i], sequences_[group.beams[choices[i].parent]]);
  }
  for (size_t i = 0; i < choices.size(); ++i) {
    sequences_[beams[i]].tokens.push_back(choices[i].token);
    sequences_[beams[i]].state = state;
  }
  replace_beams(group, std::move(beams));
}

// An idle member becomes a copy of `parent`.
void Scheduler::fork_beam(SequenceId id, const Sequence& parent) {
  Sequence& seq = sequences_[id];
  seq.tokens = parent.tokens;
  seq.block_hashes = parent.block_hashes;
  seq.num_cached_tokens = parent.num_cached_tokens;
  seq.num_computed = parent.num_computed;
  seq.num_stored_blocks = parent.num_stored_blocks;
  seq.is_swapped = parent.is_swapped;
  seq.table.fork(pool_, parent.table);
  seq.host_table.fork(host_pool_, parent.host_table);
}

void Scheduler::retire_beam(SequenceId id) {
  Sequence& seq = sequences_[id];
  if (!mutant("simulation_dead_beam_keeps_blocks")) seq.table.release(pool_);
  if (!mutant("model_dead_beam_keeps_host_blocks")) seq.host_table.release(host_pool_);
  seq.state = SequenceState::kWaiting;
  seq.is_swapped = false;
  seq.num_computed = seq.num_stored_blocks = 0;
  seq.tokens.resize(seq.num_prompt);
  const size_t num_full = seq.num_prompt / pool_.block_size();
  if (seq.block_hashes.size() > num_full) seq.block_hashes.resize(num_full);
}

// Puts the new beams where the old ones stand: among the running sequences, or, if the group was
// preempted while its step was in flight, in the waiting line.
void Scheduler::replace_beams(BeamGroup& group, std::vector<SequenceId> beams) {
  const auto is_its = [&](SequenceId id) { return sequences_[id].arrival == group.arrival; };
  for (SequenceId id : group.members) sequences_[id].unforked.clear();
  if (sequences_[beams[0]].state == SequenceState::kWaiting) {
    *std::ranges::find_if(waiting_, is_its) = beams[0];
    sequences_[beams[0]].unforked.assign(beams.begin() + 1, beams.end());
  } else {
    const auto begin = std::ranges::find_if(running_, is_its);
    const auto place = running_.erase(begin, begin + static_cast<int>(group.beams.size()));
    running_.insert(place, beams.begin(), beams.end());
  }
  group.beams = std::move(beams);
}

// Members become the answers: those of the best hypotheses, or errors where there is none.
void Scheduler::finish_beams(BeamGroup& group,
                             bool is_valid,
                             int batch_index,
                             std::vector<CommittedSequence>* committed) {
  const auto hypotheses = group.search.hypotheses();
  const int num_cached_tokens = sequences_[group.beams[0]].num_cached_tokens;
  const int num_answers = sequences_[group.members[0]].sampling.n;
  for (int i = 0; i < num_answers; ++i) {
    Sequence& seq = sequences_[group.members[i]];
    seq.tokens.resize(seq.num_prompt);
    seq.num_cached_tokens = num_cached_tokens;
    seq.finish_reason = FinishReason::kError;
    if (is_valid && i < static_cast<int>(hypotheses.size())) {
      const BeamSearch::Hypothesis& answer = hypotheses[i];
      seq.tokens.insert(seq.tokens.end(), answer.tokens.begin(), answer.tokens.end());
      seq.score = answer.score;
      seq.finish_reason = answer.reason;
      if (answer.reason == FinishReason::kStop) seq.stop_token = answer.tokens.back();
    }
    stats_.num_generated_tokens += seq.num_output();
    committed->push_back({group.members[i], batch_index, seq.num_output(), seq.finish_reason});
  }
  end_beams(group, FinishReason::kNone);
}

// Takes the group out of the lines; `reason` is that of members without one.
void Scheduler::end_beams(BeamGroup& group, FinishReason reason) {
  for (SequenceId id : group.members) {
    Sequence& seq = sequences_[id];
    std::erase(running_, id);
    std::erase(waiting_, id);
    seq.unforked.clear();
    seq.state = SequenceState::kFinished;
    if (seq.finish_reason == FinishReason::kNone) seq.finish_reason = reason;
    release_ended(id);
  }
  beam_groups_.erase(beam_groups_.begin() + (&group - beam_groups_.data()));
  end_batch_if_over();
}

}  // namespace quire
