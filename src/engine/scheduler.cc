#include "engine/scheduler.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/mutants.h"
#include "kv/block_hash.h"

namespace quire {

Scheduler::Scheduler(SchedulerConfig config, int num_blocks, int block_size)
    : config_(config),
      pool_(num_blocks, block_size),
      host_pool_(config.num_host_blocks, block_size),
      place_of_(std::max(num_blocks, config.num_host_blocks), kNoBlock) {
  QUIRE_CHECK(config.max_num_seqs >= 1 && config.max_num_batched_tokens >= 1);
  QUIRE_CHECK(config.max_logit_rows > config.max_num_seqs);
  for (int slot = config.max_num_seqs - 1; slot >= 0; --slot) unused_slots_.push_back(slot);
  running_.reserve(config.max_num_seqs);
}

Status Scheduler::check(int num_prompt_tokens, const SamplingParams& sampling) const {
  const int max_tokens = sampling.max_tokens;
  if (num_prompt_tokens < 1) {
    return invalid_argument("the prompt must have at least 1 token, got 0");
  }
  const int room = config_.max_model_len - num_prompt_tokens;
  if (room < std::min(1, max_tokens)) {
    return invalid_argument("the prompt has " + std::to_string(num_prompt_tokens) +
                            " tokens, but max_model_len is " +
                            std::to_string(config_.max_model_len) +
                            " tokens of prompt and output together: shorten the prompt or raise "
                            "--max-model-len");
  }
  if (sampling.n > config_.max_num_seqs) {
    return invalid_argument("n is " + std::to_string(sampling.n) + ", but max_num_seqs is " +
                            std::to_string(config_.max_num_seqs) +
                            ", and answers to one prompt run together: lower n or raise "
                            "--max-num-seqs");
  }
  // The last token is sampled and never computed. Full blocks of the prompt are shared.
  const int64_t computed = int64_t{num_prompt_tokens} + std::max(0, std::min(max_tokens, room) - 1);
  const int64_t shared = sampling.n == 1 ? 0 : num_prompt_tokens / pool_.block_size();
  const int64_t blocks_of_one = (computed + pool_.block_size() - 1) / pool_.block_size();
  const int64_t blocks = shared + sampling.n * (blocks_of_one - shared);
  if (blocks > pool_.num_blocks()) {
    return invalid_argument(
        "the prompt of " + std::to_string(num_prompt_tokens) + " tokens and max_tokens " +
        std::to_string(max_tokens) +
        (sampling.n == 1 ? "" : ", n = " + std::to_string(sampling.n) + " times,") + " need " +
        std::to_string(blocks) + " KV blocks, but the whole pool has " +
        std::to_string(pool_.num_blocks()) + " blocks of " + std::to_string(pool_.block_size()) +
        " tokens: shorten the prompt, lower max_tokens or raise --kv-cache-memory-bytes");
  }
  return Status();
}

Result<SequenceId> Scheduler::add(SequenceSpec spec) {
  QUIRE_RETURN_IF_ERROR(check(static_cast<int>(spec.prompt.size()), spec.sampling));
  forget_ended();
  const SequenceId first = open(spec, 0);
  for (int i = 1; i < spec.sampling.n; ++i) {
    const SequenceId other = open(spec, i);
    sequences_[first].unforked.push_back(other);
  }
  sequences_[first].wants_all_rows = spec.wants_all_rows;
  ++num_arrivals_;
  waiting_.push_back(first);
  return first;
}

// One of the n sequences of a request.
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
  seq.max_output = std::min(spec.sampling.max_tokens, config_.max_model_len - num_prompt);
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

void Scheduler::cancel(SequenceId id) {
  Sequence& seq = sequences_[id];
  const bool is_open = seq.state == SequenceState::kWaiting || seq.state == SequenceState::kRunning;
  if (!is_open) return;
  leave(id);
  seq.state = SequenceState::kFinished;
  seq.finish_reason = FinishReason::kAborted;
  if (seq.num_in_flight == 0) release(id);
}

void Scheduler::schedule(ScheduledBatch* batch) {
  forget_ended();
  batch->clear();
  batch->reserve(config_.max_num_seqs,
                 config_.max_num_batched_tokens,
                 config_.max_logit_rows,
                 pool_.num_blocks());
  Budget budget{config_.max_num_batched_tokens, config_.max_logit_rows - config_.max_num_seqs, 0};
  schedule_running(batch, &budget);
  if (!budget.preempted) admit_waiting(batch, &budget);
  stats_.peak_used_blocks = std::max(stats_.peak_used_blocks, pool_.num_used());
}

void Scheduler::schedule_running(ScheduledBatch* batch, Budget* budget) {
  for (size_t begin = 0; begin < running_.size();) {
    const GroupRange group = group_at(begin);
    if (!schedule_group(group, batch, budget)) break;
    begin = group.end + fork_if_due(running_[group.begin], batch);
  }
}

// False if there are no blocks for it, though it is the newest: then it waits again.
bool Scheduler::schedule_group(GroupRange group, ScheduledBatch* batch, Budget* budget) {
  count_tokens(group, *budget);
  if (!reserve_or_preempt(group, batch, budget)) return false;
  for (size_t i = group.begin; i < group.end; ++i) {
    const int n = counts_[i - group.begin];
    if (n > 0) append_to_batch(running_[i], n, batch, budget);
    budget->outstanding_blocks += blocks_missing(sequences_[running_[i]]);
  }
  return true;
}

// How many tokens of the sequence this step may compute; 0 when it waits for a commit.
int Scheduler::num_tokens_to_compute(const Sequence& seq, const Budget& budget) const {
  const bool output_complete = seq.num_output() + seq.num_pending >= seq.max_output;
  if (output_complete && seq.num_pending > 0) return 0;
  // A group forks where its members begin to differ.
  const int end = seq.unforked.empty() ? seq.num_tokens() : seq.num_prompt;
  int n = std::min(end - seq.num_computed, budget.tokens);
  if (config_.long_prefill_token_threshold > 0) {
    n = std::min(n, config_.long_prefill_token_threshold);
  }
  if (n > 0 && seq.wants_all_rows) {
    const int rows_beyond = num_rows_of(seq, n) - (1 + budget.prompt_rows);
    if (rows_beyond > 0) n -= rows_beyond;
  }
  return n;
}

// Logit rows wanted of the next `num_tokens` tokens.
int Scheduler::num_rows_of(const Sequence& seq, int num_tokens) const {
  const int end = seq.num_computed + num_tokens;
  if (seq.wants_all_rows) return std::max(0, end - std::max(seq.num_computed, seq.num_rows_done));
  const bool samples =
      end == seq.num_tokens() && seq.num_output() + seq.num_pending < seq.max_output;
  return samples ? 1 : 0;
}

// Blocks that the sequence, and those that will fork from it, need for tokens they have.
int Scheduler::blocks_missing(const Sequence& seq) const {
  const int block_size = pool_.block_size();
  int missing = std::max(0, num_blocks_for(seq.num_tokens(), block_size) - seq.table.size());
  for (SequenceId other : seq.unforked) {
    missing += num_blocks_for(sequences_[other].num_tokens(), block_size) -
               num_blocks_for(seq.num_prompt, block_size);
  }
  return missing;
}

// Own blocks for the next `num_tokens` tokens; a block that others hold too is copied.
void Scheduler::reserve(Sequence& seq, int num_tokens, std::vector<BlockCopy>* copies) {
  QUIRE_CHECK(seq.table.reserve(pool_, seq.num_computed + num_tokens));
  if (writes_nothing(seq)) return;
  const int first_written = seq.num_computed / pool_.block_size();
  QUIRE_CHECK(seq.table.make_writable(pool_, first_written, copies));
}

// The next token is the last of a prompt that is wholly cached: it is computed for its logits.
bool Scheduler::writes_nothing(const Sequence& seq) const {
  const int block = seq.num_computed / pool_.block_size();
  return block < seq.table.size() && pool_.has_content(seq.table[block]);
}

// Are there blocks for counts_ tokens of each member, new ones and copies?
bool Scheduler::can_reserve(GroupRange group) {
  int wanted = 0;
  written_.clear();
  for (size_t i = group.begin; i < group.end; ++i) {
    const Sequence& seq = sequences_[running_[i]];
    const int n = counts_[i - group.begin];
    if (n == 0) continue;
    const int first_written = seq.num_computed / pool_.block_size();
    wanted += num_blocks_for(seq.num_computed + n, pool_.block_size()) - seq.table.size();
    const bool exists = first_written < seq.table.size();
    if (!exists || writes_nothing(seq) || pool_.is_writable(seq.table[first_written])) continue;
    // Where all holders of a block write to it, the last one needs no copy.
    written_.push_back(seq.table[first_written]);
    wanted += std::ranges::count(written_, written_.back()) < pool_.ref_count(written_.back());
  }
  return wanted <= pool_.num_available();
}

// Blocks for counts_ tokens of each member, taken from the newest running groups if need be. False
// if the group itself was the newest.
bool Scheduler::reserve_or_preempt(GroupRange group, ScheduledBatch* batch, Budget* budget) {
  const uint64_t arrival = sequences_[running_[group.begin]].arrival;
  while (!can_reserve(group)) {
    const bool is_own = sequences_[running_.back()].arrival == arrival;
    preempt_newest_group(batch);
    budget->preempted = true;
    if (is_own) return false;
  }
  for (size_t i = group.begin; i < group.end; ++i) {
    const int n = counts_[i - group.begin];
    if (n > 0) reserve(sequences_[running_[i]], n, &batch->copies);
  }
  return true;
}

void Scheduler::admit_waiting(ScheduledBatch* batch, Budget* budget) {
  while (!waiting_.empty() && budget->tokens > 0) {
    if (!admit(waiting_.front(), batch, budget)) return;
  }
}

// Moves the first waiting group into the batch if there are slots for all its members and blocks
// for all the tokens they have, beside what running sequences still need for theirs.
bool Scheduler::admit(SequenceId id, ScheduledBatch* batch, Budget* budget) {
  Sequence& seq = sequences_[id];
  if (!may_be_admitted(seq)) return false;
  if (seq.is_swapped) return admit_swapped(id, batch, budget);
  find_cached_prefix(seq);
  const int unreferenced = static_cast<int>(
      std::ranges::count_if(found_, [&](BlockId block) { return pool_.ref_count(block) == 0; }));
  const int wanted = blocks_missing(seq) - static_cast<int>(found_.size());
  if (unreferenced + wanted + budget->outstanding_blocks > pool_.num_available()) return false;

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
  seq.state = SequenceState::kRunning;
  waiting_.pop_front();
  running_.push_back(id);
  const size_t place = running_.size() - 1;
  fork_if_due(id, batch);  // a group that comes back and finds its whole prompt in the cache
  QUIRE_CHECK(schedule_group(group_at(place), batch, budget));
  fork_if_due(id, batch);
  return true;
}

bool Scheduler::may_be_admitted(const Sequence& seq) const {
  if (unused_slots_.size() < 1 + seq.unforked.size()) return false;
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

void Scheduler::announce(Sequence& seq, ScheduledBatch* batch) const {
  if (seq.is_announced) return;
  seq.is_announced = true;
  batch->new_sequences.push_back(
      {seq.slot, seq.sample_index, seq.sampling, seq.end_tokens, seq.tokens, seq.num_prompt});
}

void Scheduler::append_to_batch(SequenceId id,
                                int num_tokens,
                                ScheduledBatch* batch,
                                Budget* budget) {
  Sequence& seq = sequences_[id];
  announce(seq, batch);
  const int start = seq.num_computed, end = start + num_tokens;
  const int num_known = static_cast<int>(seq.tokens.size());
  const int num_rows = num_rows_of(seq, num_tokens);
  ScheduledSequence entry{};
  entry.id = id;
  entry.epoch = seq.num_preemptions;
  entry.slot = seq.slot;
  entry.start = start;
  entry.num_tokens = num_tokens;
  entry.num_unwritten = writes_nothing(seq) ? 1 : 0;
  entry.first_token = static_cast<int32_t>(batch->tokens.size());
  entry.first_block = static_cast<int32_t>(batch->block_ids.size());
  entry.num_blocks = seq.table.size();
  entry.first_row = static_cast<int32_t>(batch->logit_rows.size());
  entry.num_rows = num_rows;
  entry.next_token = end < num_known ? seq.tokens[end] : -1;
  entry.samples = end == seq.num_tokens() && seq.num_output() + seq.num_pending < seq.max_output;
  for (int i = start; i < end; ++i) {
    batch->tokens.push_back(i < num_known ? seq.tokens[i] : kPendingToken);
  }
  const auto blocks = seq.table.blocks();
  batch->block_ids.insert(batch->block_ids.end(), blocks.begin(), blocks.end());
  const int num_in_batch = static_cast<int>(batch->tokens.size());
  for (int row = num_in_batch - num_rows; row < num_in_batch; ++row) {
    batch->logit_rows.push_back(row);
  }
  batch->sequences.push_back(entry);

  budget->tokens -= num_tokens;
  budget->prompt_rows -= std::max(0, num_rows - 1);
  seq.num_computed = end;
  seq.num_rows_done = std::max(seq.num_rows_done, end);
  seq.num_pending += entry.samples;
  ++seq.num_in_flight;
}

void Scheduler::commit(const ScheduledBatch& batch,
                       const StepResult& result,
                       std::vector<CommittedSequence>* committed) {
  committed->clear();
  bool any_finished = false;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ScheduledSequence& entry = batch.sequences[i];
    Sequence& seq = sequences_[entry.id];
    --seq.num_in_flight;
    if (seq.state == SequenceState::kFinished) {  // ended while this step was in flight
      if (seq.num_in_flight == 0) release(entry.id);
      continue;
    }
    CommittedSequence done{entry.id, static_cast<int32_t>(i), 0, FinishReason::kNone};
    for (int32_t token : result.tokens_of(static_cast<int>(i))) {
      --seq.num_pending;
      append_token(seq, token);
      ++done.num_new_tokens;
      if (seq.finish_reason != FinishReason::kNone) break;
    }
    if (seq.finish_reason == FinishReason::kError) done.num_new_tokens = 0;
    const int num_computed = entry.start + entry.num_tokens;
    if (seq.max_output == 0 && num_computed == seq.num_prompt) {
      seq.finish_reason = FinishReason::kLength;
    }
    const bool still_holds_blocks = entry.epoch == seq.num_preemptions;
    if (still_holds_blocks) store_full_blocks(seq, num_computed);
    done.finish_reason = seq.finish_reason;
    any_finished |= done.finish_reason != FinishReason::kNone;
    stats_.num_generated_tokens += done.num_new_tokens;
    committed->push_back(done);
  }
  if (!any_finished) return;
  for (const CommittedSequence& done : *committed) {
    if (done.finish_reason == FinishReason::kNone) continue;
    leave(done.id);
    sequences_[done.id].state = SequenceState::kFinished;
    if (sequences_[done.id].num_in_flight == 0) release(done.id);
  }
}

void Scheduler::append_token(Sequence& seq, int32_t token) {
  if (token == kInvalidToken) {
    seq.finish_reason = FinishReason::kError;
    return;
  }
  seq.tokens.push_back(token);
  const bool is_end = std::ranges::find(seq.end_tokens, token) != seq.end_tokens.end();
  if (is_end && seq.num_output() >= seq.sampling.min_tokens) {
    seq.finish_reason = FinishReason::kStop;
    seq.stop_token = token;
  } else if (seq.num_output() >= seq.max_output) {
    seq.finish_reason = FinishReason::kLength;
  }
}

TokenChain Scheduler::chain_of(Sequence& seq) const {
  extend_block_hashes(
      root_hash(pool_.salt(seq.root)), seq.tokens, pool_.block_size(), &seq.block_hashes);
  return {seq.root, seq.tokens, seq.block_hashes};
}

void Scheduler::store_full_blocks(Sequence& seq, int num_computed) {
  if (!config_.enable_prefix_caching) return;
  const int num_full = num_computed / pool_.block_size();
  if (num_full <= seq.num_stored_blocks) return;
  cache_blocks(pool_, chain_of(seq), seq.num_stored_blocks, num_full, &seq.table);
  seq.num_stored_blocks = num_full;
}

// The end of a sequence that is in no launched step: everything it holds goes back.
void Scheduler::release(SequenceId id) {
  Sequence& seq = sequences_[id];
  seq.table.release(pool_);
  seq.host_table.release(host_pool_);
  pool_.release_root(seq.root);
  if (seq.slot >= 0) unused_slots_.push_back(seq.slot);
  seq.slot = -1;
  seq.root = kNoBlock;
  seq.is_swapped = false;
  seq.state = SequenceState::kUnused;
  ended_.push_back(id);
}

// Tokens and counts of ended sequences could be read until here.
void Scheduler::forget_ended() {
  for (SequenceId id : ended_) {
    sequences_[id] = Sequence{};
    unused_ids_.push_back(id);
  }
  ended_.clear();
}

}  // namespace quire
