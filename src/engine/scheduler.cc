#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "base/mutants.h"
#include "kv/block_hash.h"

namespace quire {

Scheduler::Scheduler(SchedulerConfig config, int num_blocks, int block_size)
    : config_(config),
      pool_(num_blocks, block_size),
      regions_(is_contiguous(config.kv_policy) ? num_blocks : 0),
      host_pool_(config.num_host_blocks, block_size),
      place_of_(std::max(num_blocks, config.num_host_blocks), kNoBlock) {
  QUIRE_CHECK(config.max_num_seqs >= 1 && config.max_num_batched_tokens >= 1);
  QUIRE_CHECK(config.max_logit_rows > config.max_num_seqs);
  if (config.kv_policy != KvPolicy::kPaged) {
    QUIRE_CHECK(!config.enable_prefix_caching && config.num_host_blocks == 0);
  }
  for (int slot = config.max_num_seqs - 1; slot >= 0; --slot) unused_slots_.push_back(slot);
  running_.reserve(config.max_num_seqs);
}

void Scheduler::cancel(SequenceId id) {
  Sequence& seq = sequences_[id];
  const bool is_open = seq.state == SequenceState::kWaiting || seq.state == SequenceState::kRunning;
  if (!is_open) return;
  if (seq.is_beam()) return end_beams(beam_group_of(seq), FinishReason::kAborted);
  leave(id);
  seq.state = SequenceState::kFinished;
  seq.finish_reason = FinishReason::kAborted;
  release_ended(id);
  end_batch_if_over();
}

void Scheduler::schedule(ScheduledBatch* batch, double now) {
  forget_ended();
  batch->clear();
  batch->reserve(config_.max_num_seqs,
                 config_.max_num_batched_tokens,
                 config_.max_logit_rows,
                 pool_.num_blocks());
  fill(batch, now);
  // The last member of a request-level batch may have made way for members that have ended and keep
  // their memory until the batch is over: it is over now, and the next one begins.
  if (batch->sequences.empty() && batch->swap_out.empty() && ends_batch_by_making_way()) {
    batch->clear();  // copies into regions that are given up
    fill(batch, now);
  }
  stats_.num_computed_tokens += static_cast<int64_t>(batch->tokens.size());
  stats_.num_copied_blocks += static_cast<int64_t>(batch->copies.size());
  stats_.peak_used_blocks = std::max(stats_.peak_used_blocks, pool_.num_used());
}

void Scheduler::fill(ScheduledBatch* batch, double now) {
  Budget budget{config_.max_num_batched_tokens, config_.max_logit_rows - config_.max_num_seqs, 0};
  prepare_policy(batch);
  end_batch_if_over();
  open_batch(now);
  schedule_running(batch, &budget);
  if (!budget.preempted) admit_waiting(batch, &budget);
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
  if (sequences_[running_[group.begin]].is_beam()) count_beam_tokens(group, *budget);
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
  // Without a cache a sequence is computed in one piece.
  if (config_.kv_policy == KvPolicy::kOff && n < end - seq.num_computed) return 0;
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
  while (is_contiguous(config_.kv_policy) ? !grow_regions(group, batch) : !can_reserve(group)) {
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
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ScheduledSequence& entry = batch.sequences[i];
    Sequence& seq = sequences_[entry.id];
    --seq.num_in_flight;
    const bool forgets = config_.kv_policy == KvPolicy::kOff && seq.num_in_flight == 0;
    if (forgets && !mutant("model_check_off_keeps_kv")) {
      release_blocks(seq);
      seq.num_computed = 0;
    }
    if (seq.state == SequenceState::kFinished) {  // ended while this step was in flight
      release_ended(entry.id);
      continue;
    }
    const bool still_holds_blocks = entry.epoch == seq.num_preemptions;
    const int num_computed = entry.start + entry.num_tokens;
    if (seq.is_beam()) {
      if (still_holds_blocks) store_full_blocks(seq, num_computed);
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
    if (seq.max_output == 0 && num_computed == seq.num_prompt) {
      seq.finish_reason = FinishReason::kLength;
    }
    if (still_holds_blocks) store_full_blocks(seq, num_computed);
    done.finish_reason = seq.finish_reason;
    stats_.num_generated_tokens += done.num_new_tokens;
    committed->push_back(done);
  }
  finish_ended(*committed);
  commit_beams(batch, result, committed);
}

void Scheduler::finish_ended(std::span<const CommittedSequence> committed) {
  for (const CommittedSequence& done : committed) {
    if (done.finish_reason == FinishReason::kNone) continue;
    leave(done.id);
    sequences_[done.id].state = SequenceState::kFinished;
    release_ended(done.id);
  }
  end_batch_if_over();
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
  seq.num_stored_blocks =
      cache_blocks(pool_, chain_of(seq), seq.num_stored_blocks, num_full, &seq.table);
}

// The end of a sequence that is in no launched step: everything it holds goes back.
void Scheduler::release(SequenceId id) {
  Sequence& seq = sequences_[id];
  release_blocks(seq);
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
