#include "engine/scheduler.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/mutants.h"
#include "kv/block_hash.h"

namespace quire {

Scheduler::Scheduler(SchedulerConfig config, int num_blocks, int block_size)
    : config_(config), pool_(num_blocks, block_size) {
  QUIRE_CHECK(config.max_num_seqs >= 1 && config.max_num_batched_tokens >= 1);
  QUIRE_CHECK(config.max_logit_rows > config.max_num_seqs);
  for (int slot = config.max_num_seqs - 1; slot >= 0; --slot) unused_slots_.push_back(slot);
  running_.reserve(config.max_num_seqs);
}

Status Scheduler::check(int num_prompt_tokens, int max_tokens) const {
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
  // The last token is sampled and never computed.
  const int64_t computed = int64_t{num_prompt_tokens} + std::max(0, std::min(max_tokens, room) - 1);
  const int64_t blocks = (computed + pool_.block_size() - 1) / pool_.block_size();
  if (blocks > pool_.num_blocks()) {
    return invalid_argument(
        "the prompt of " + std::to_string(num_prompt_tokens) + " tokens and max_tokens " +
        std::to_string(max_tokens) + " need " + std::to_string(blocks) +
        " KV blocks, but the whole pool has " + std::to_string(pool_.num_blocks()) + " blocks of " +
        std::to_string(pool_.block_size()) +
        " tokens: shorten the prompt, lower max_tokens or raise --kv-cache-memory-bytes");
  }
  return Status();
}

Result<SequenceId> Scheduler::add(SequenceSpec spec) {
  const int num_prompt = static_cast<int>(spec.prompt.size());
  QUIRE_RETURN_IF_ERROR(check(num_prompt, spec.sampling.max_tokens));
  forget_ended();
  if (unused_ids_.empty()) {
    unused_ids_.push_back(static_cast<SequenceId>(sequences_.size()));
    sequences_.emplace_back();
  }
  const SequenceId id = unused_ids_.back();
  unused_ids_.pop_back();
  Sequence& seq = sequences_[id];
  seq.state = SequenceState::kWaiting;
  seq.arrival = num_arrivals_++;
  seq.max_output = std::min(spec.sampling.max_tokens, config_.max_model_len - num_prompt);
  seq.end_tokens = spec.sampling.stop_token_ids;
  if (!spec.sampling.ignore_eos) {
    seq.end_tokens.insert(
        seq.end_tokens.end(), spec.eos_token_ids.begin(), spec.eos_token_ids.end());
  }
  seq.sampling = std::move(spec.sampling);
  seq.wants_all_rows = spec.wants_all_rows;
  seq.tokens = std::move(spec.prompt);
  seq.num_prompt = num_prompt;
  seq.tokens.reserve(num_prompt + seq.max_output);
  const int most_blocks = num_blocks_for(num_prompt + seq.max_output, pool_.block_size());
  seq.table.set_capacity(most_blocks);
  seq.block_hashes.reserve(most_blocks);
  seq.root = pool_.acquire_root(spec.cache_salt);
  waiting_.push_back(id);
  return id;
}

void Scheduler::cancel(SequenceId id) {
  Sequence& seq = sequences_[id];
  if (seq.state == SequenceState::kWaiting) {
    std::erase(waiting_, id);
  } else if (seq.state == SequenceState::kRunning) {
    std::erase(running_, id);
  } else {
    return;
  }
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
  for (size_t i = 0; i < running_.size(); ++i) {
    const SequenceId id = running_[i];
    const int n = num_tokens_to_compute(sequences_[id], *budget);
    if (n > 0) {
      if (!reserve_or_preempt(id, n, budget)) break;
      append_to_batch(id, n, batch, budget);
    }
    budget->outstanding_blocks += blocks_missing(sequences_[id]);
  }
}

// How many tokens of the sequence this step may compute; 0 when it waits for a commit.
int Scheduler::num_tokens_to_compute(const Sequence& seq, const Budget& budget) const {
  const bool output_complete = seq.num_output() + seq.num_pending >= seq.max_output;
  if (output_complete && seq.num_pending > 0) return 0;
  int n = std::min(seq.num_tokens() - seq.num_computed, budget.tokens);
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

int Scheduler::blocks_missing(const Sequence& seq) const {
  return std::max(0, num_blocks_for(seq.num_tokens(), pool_.block_size()) - seq.table.size());
}

// Blocks for the next `num_tokens` tokens, taken from the newest running sequences if need be.
// False if the sequence itself was the newest.
bool Scheduler::reserve_or_preempt(SequenceId id, int num_tokens, Budget* budget) {
  while (!sequences_[id].table.reserve(pool_, sequences_[id].num_computed + num_tokens)) {
    const SequenceId victim = running_.back();
    preempt(victim);
    budget->preempted = true;
    if (victim == id) return false;
  }
  return true;
}

void Scheduler::preempt(SequenceId id) {
  Sequence& seq = sequences_[id];
  running_.pop_back();
  waiting_.push_front(id);
  seq.state = SequenceState::kWaiting;
  if (!mutant("simulation_preempt_keeps_computed")) seq.num_computed = 0;
  seq.table.release(pool_);
  seq.num_stored_blocks = 0;
  unused_slots_.push_back(seq.slot);
  seq.slot = -1;
  ++seq.num_preemptions;
  ++stats_.num_preemptions;
}

void Scheduler::admit_waiting(ScheduledBatch* batch, Budget* budget) {
  while (!waiting_.empty() && budget->tokens > 0 && !unused_slots_.empty()) {
    if (!admit(waiting_.front(), batch, budget)) return;
  }
}

// Moves the first waiting sequence into the batch if there are blocks for all the tokens it has,
// beside what running sequences still need for theirs.
bool Scheduler::admit(SequenceId id, ScheduledBatch* batch, Budget* budget) {
  Sequence& seq = sequences_[id];
  if (seq.num_pending > 0) return false;  // preempted in flight: its last token is not known yet
  const int block_size = pool_.block_size();
  found_.clear();
  if (config_.enable_prefix_caching) {
    // The last token is always computed, for its logits.
    int reusable = seq.num_tokens() - 1;
    if (seq.wants_all_rows) reusable = std::min(reusable, seq.num_rows_done);
    find_prefix(pool_, chain_of(seq), reusable / block_size, &found_);
  }
  const int unreferenced = static_cast<int>(
      std::ranges::count_if(found_, [&](BlockId block) { return pool_.ref_count(block) == 0; }));
  const int wanted = num_blocks_for(seq.num_tokens(), block_size) - static_cast<int>(found_.size());
  if (unreferenced + wanted + budget->outstanding_blocks > pool_.num_available()) return false;

  for (BlockId block : found_) seq.table.append_shared(pool_, block);
  const int num_found = static_cast<int>(found_.size()) * block_size;
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
  seq.slot = unused_slots_.back();
  unused_slots_.pop_back();
  seq.state = SequenceState::kRunning;
  waiting_.pop_front();
  running_.push_back(id);
  announce(seq, batch);
  const int n = num_tokens_to_compute(seq, *budget);
  QUIRE_CHECK(n > 0 && seq.table.reserve(pool_, seq.num_computed + n));
  append_to_batch(id, n, batch, budget);
  budget->outstanding_blocks += blocks_missing(seq);
  return true;
}

void Scheduler::announce(const Sequence& seq, ScheduledBatch* batch) const {
  batch->new_sequences.push_back(
      {seq.slot, seq.sampling, seq.end_tokens, seq.tokens, seq.num_prompt});
}

void Scheduler::append_to_batch(SequenceId id,
                                int num_tokens,
                                ScheduledBatch* batch,
                                Budget* budget) {
  Sequence& seq = sequences_[id];
  const int start = seq.num_computed, end = start + num_tokens;
  const int num_known = static_cast<int>(seq.tokens.size());
  const int num_rows = num_rows_of(seq, num_tokens);
  ScheduledSequence entry{};
  entry.id = id;
  entry.epoch = seq.num_preemptions;
  entry.slot = seq.slot;
  entry.start = start;
  entry.num_tokens = num_tokens;
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
  const auto ended = [&](SequenceId id) {
    return sequences_[id].finish_reason != FinishReason::kNone;
  };
  std::erase_if(running_, ended);
  std::erase_if(waiting_, ended);
  for (const CommittedSequence& done : *committed) {
    if (done.finish_reason == FinishReason::kNone) continue;
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
  pool_.release_root(seq.root);
  if (seq.slot >= 0) unused_slots_.push_back(seq.slot);
  seq.slot = -1;
  seq.root = kNoBlock;
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
