// How requests come in: the waiting line, and who leaves it for the running ones.
#include <algorithm>

#include "base/check.h"
#include "base/mutants.h"
#include "engine/scheduler.h"

namespace quire {

Result<SequenceId> Scheduler::add(SequenceSpec spec) {
  QUIRE_RETURN_IF_ERROR(limits().check(static_cast<int>(spec.prompt.size()), spec.sampling));
  forget_ended();
  const SequenceId first = open(spec, 0);
  for (int i = 1; i < spec.sampling.num_sequences(); ++i) {
    const SequenceId other = open(spec, i);
    sequences_[first].unforked.push_back(other);
  }
  if (spec.sampling.is_beam_search()) open_beams(first);
  sequences_[first].wants_all_rows = spec.wants_all_rows;
  ++num_arrivals_;
  waiting_.push_back(first);
  return first;
}

// One of the n sequences of a request.
std::vector<SequenceId> Scheduler::answers_of(SequenceId first) const {
  const Sequence& seq = sequences_[first];
  std::vector<SequenceId> answers = {first};
  if (seq.is_beam()) {
    answers = beam_group_of(seq).members;
    answers.resize(seq.sampling.n);
  } else {
    answers.insert(answers.end(), seq.unforked.begin(), seq.unforked.end());
  }
  return answers;
}

SequenceId Scheduler::open(const SequenceSpec& spec, int sample_index) {
  if (unused_ids_.empty()) {
    unused_ids_.push_back(static_cast<SequenceId>(sequences_.size()));
    sequences_.emplace_back();
  }
  const SequenceId id = unused_ids_.back();
  unused_ids_.pop_back();
  Sequence& seq = sequences_[id];
  const int num_prompt = static_cast<int>(spec.prompt.size());
  seq.state = SequenceState::kWaiting;
  seq.arrival = num_arrivals_;
  seq.sample_index = sample_index;
  seq.sampling = spec.sampling;
  seq.submit_time = spec.submit_time;
  seq.max_output = std::min(spec.sampling.max_tokens, config_.max_model_len - num_prompt);
  seq.expected_output =
      std::min(spec.sampling.expected_output_tokens.value_or(seq.max_output), seq.max_output);
  if (knows_output(config_.kv_policy)) seq.max_output = seq.expected_output;
  seq.end_tokens = spec.sampling.stop_token_ids;
  if (!spec.sampling.ignore_eos) {
    seq.end_tokens.insert(
        seq.end_tokens.end(), spec.eos_token_ids.begin(), spec.eos_token_ids.end());
  }
  seq.tokens.reserve(num_prompt + seq.max_output);
  seq.tokens = spec.prompt;
  seq.num_prompt = num_prompt;
  const int most_blocks = num_blocks_for(num_prompt + seq.max_output, pool_.block_size());
  seq.table.set_capacity(most_blocks);
  seq.block_hashes.reserve(most_blocks);
  seq.root = pool_.acquire_root(spec.cache_salt);
  return id;
}

void Scheduler::admit_waiting(ScheduledBatch* batch, Budget* budget) {
  while (!waiting_.empty() && budget->tokens > 0 && takes_another_request()) {
    const bool admitted = admit(waiting_.front(), batch, budget);
    count_in_batch(admitted);
    if (!admitted) return;
  }
}

// Moves the first waiting group into the batch if there are slots for all its members and blocks
// for all the tokens they have, beside what running sequences still need for theirs.
bool Scheduler::admit(SequenceId id, ScheduledBatch* batch, Budget* budget) {
  Sequence& seq = sequences_[id];
  if (!may_be_admitted(seq)) return false;
  if (is_contiguous(config_.kv_policy)) return admit_contiguous(id, batch, budget);
  if (seq.is_swapped) return admit_swapped(id, batch, budget);
  find_cached_prefix(seq);
  const int unreferenced = static_cast<int>(
      std::ranges::count_if(found_, [&](BlockId block) { return pool_.ref_count(block) == 0; }));
  const int wanted = blocks_missing(seq) - static_cast<int>(found_.size());
  if (unreferenced + wanted + budget->outstanding_blocks > pool_.num_available()) return false;
  start(id, batch, budget);
  return true;
}

// A waiting group, for which there is room, with the blocks found_ runs from now on.
void Scheduler::start(SequenceId id, ScheduledBatch* batch, Budget* budget) {
  Sequence& seq = sequences_[id];
  for (BlockId block : found_) seq.table.append_shared(pool_, block);
  // The last token is always computed, for its logits.
  const int num_found =
      std::min(static_cast<int>(found_.size()) * pool_.block_size(), seq.num_tokens() - 1);
  if (!mutant("simulation_preempt_keeps_computed") || seq.num_computed == 0) {
    seq.num_computed = num_found;
  }
  seq.num_stored_blocks = static_cast<int>(found_.size());
  if (seq.num_preemptions == 0) {
    seq.num_cached_tokens = num_found;
    stats_.num_prompt_tokens += seq.num_prompt;
    stats_.prefix_cache_queries += seq.num_prompt;
    stats_.prefix_cache_hits += num_found;
  }
  take_slot(seq);
  for (SequenceId other : seq.unforked) take_slot(sequences_[other]);
  for (SequenceId other : idle_beams(seq)) take_slot(sequences_[other]);
  seq.state = SequenceState::kRunning;
  waiting_.pop_front();
  running_.push_back(id);
  const size_t place = running_.size() - 1;
  fork_if_due(id, batch);  // a group that comes back and finds its whole prompt in the cache
  QUIRE_CHECK(schedule_group(group_at(place), batch, budget));
  fork_if_due(id, batch);
}

bool Scheduler::may_be_admitted(const Sequence& seq) const {
  if (unused_slots_.size() < 1 + seq.unforked.size() + idle_beams(seq).size()) return false;
  // Preempted in flight: a last token is not known yet.
  const auto waits = [&](SequenceId id) { return sequences_[id].num_pending > 0; };
  return seq.num_pending == 0 && std::ranges::none_of(seq.unforked, waits);
}

// found_ = the leading blocks that the cache has of what the sequence must compute.
void Scheduler::find_cached_prefix(Sequence& seq) {
  found_.clear();
  if (!config_.enable_prefix_caching) return;
  int reusable = seq.unforked.empty() ? seq.num_tokens() : seq.num_prompt;  // where it forks
  if (seq.wants_all_rows) reusable = std::min(reusable, seq.num_rows_done);
  find_prefix(pool_, chain_of(seq), reusable / pool_.block_size(), &found_);
}

void Scheduler::take_slot(Sequence& seq) {
  seq.slot = unused_slots_.back();
  unused_slots_.pop_back();
}

}  // namespace quire
