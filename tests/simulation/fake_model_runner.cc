#include "simulation/fake_model_runner.h"

#include <algorithm>

#include "base/check.h"

namespace quire {

Status FakeModelRunner::launch(const ScheduledBatch& batch) {
  if (num_launched_ == fail_at_launch) return internal_error("the fake device is gone");
  QUIRE_CHECK(static_cast<int>(launched_.size()) < info_.max_in_flight);
  for (const NewSequence& fresh : batch.new_sequences) {
    Slot& slot = slots_.at(fresh.slot);
    slot = Slot{};
    slot.salt = *fresh.sampling.seed;
    slot.num_prompt = fresh.num_prompt;
    slot.sample_index = fresh.sample_index;
    slot.prompt_logprobs = fresh.sampling.prompt_logprobs.has_value();
    slot.logprobs = fresh.sampling.logprobs.has_value();
    const int num_end_tokens = static_cast<int>(sorted_once(fresh.end_tokens).size());
    const int width = fresh.sampling.beam_width;
    slot.num_candidates = width > 0 ? num_beam_candidates(width, num_end_tokens) : 0;
  }
  Output output;
  output.result.clear(static_cast<int>(batch.sequences.size()));
  output.result.vocab_size = info_.vocab_size;
  copy_blocks(batch.swap_out, kv_, &host_kv_);
  copy_blocks(batch.swap_in, host_kv_, &kv_);
  copy_blocks(batch.copies, kv_, &kv_);
  write_kv(batch);  // as in a real layer: all writes of the step, then all reads
  read_kv(batch, &output);
  launched_.push_back(std::move(output));
  ++num_launched_;
  return Status();
}

void FakeModelRunner::copy_blocks(const std::vector<BlockCopy>& copies,
                                  const std::vector<uint64_t>& from,
                                  std::vector<uint64_t>* to) const {
  for (const BlockCopy& copy : copies) {
    std::copy_n(from.begin() + int64_t{copy.source} * info_.block_size,
                info_.block_size,
                to->begin() + int64_t{copy.destination} * info_.block_size);
  }
}

void FakeModelRunner::write_kv(const ScheduledBatch& batch) {
  for (const ScheduledSequence& s : batch.sequences) {
    const Slot& slot = slots_.at(s.slot);
    const auto blocks = batch.blocks_of(s);
    for (int i = s.num_unwritten; i < s.num_tokens; ++i) {
      const int position = s.start + i;
      int32_t token = batch.tokens[s.first_token + i];
      if (token == kPendingToken) token = slot.last_token;
      const uint64_t before =
          position == 0 ? slot.salt : kv_[kv_slot(blocks, position - 1, info_.block_size)];
      kv_[kv_slot(blocks, position, info_.block_size)] = FakeHistory::next_content(before, token);
    }
  }
}

void FakeModelRunner::read_kv(const ScheduledBatch& batch, Output* output) {
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const ScheduledSequence& entry = batch.sequences[s];
    Slot& slot = slots_.at(entry.slot);
    const auto blocks = batch.blocks_of(entry);
    const bool is_shared = entry.only_samples() && s > 0;
    FakeHistory history = is_shared ? row_history_ : FakeHistory(slot.salt);
    const int end = is_shared ? 0 : entry.start + entry.num_tokens;
    for (int position = 0; position < end; ++position) {
      history.append_content(kv_[kv_slot(blocks, position, info_.block_size)]);
      if (position < end - entry.num_rows) continue;
      const int i = entry.first_token + position + 1 - entry.start;
      const int32_t given = position + 1 < end ? batch.tokens[i] : entry.next_token;
      emit_row(position, given, static_cast<int>(s), history, output);
    }
    row_history_ = history;  // entries that only sample follow the one that has their row
    const bool invalid = num_launched_ == invalid_at_launch;
    if (entry.samples && slot.num_candidates > 0) {
      if (!invalid)
        list_candidates(slot.num_candidates, history, &output->result.beam_candidates[s]);
    } else if (entry.samples) {
      slot.last_token = history.next_token(info_.vocab_size, slot.sample_index);
      output->result.tokens.push_back(invalid ? kInvalidToken : slot.last_token);
      if (slot.logprobs) {
        output->result.logprobs[s].sampled = {
            {slot.last_token, static_cast<float>(entry.start + entry.num_tokens), 1}};
      }
    }
    output->result.token_start[s + 1] = static_cast<int32_t>(output->result.tokens.size());
  }
}

void FakeModelRunner::list_candidates(int count,
                                      const FakeHistory& history,
                                      std::vector<BeamCandidate>* candidates) const {
  const std::vector<double> logprobs = history.logprobs(info_.vocab_size);
  for (int32_t token = 0; token < info_.vocab_size; ++token) {
    candidates->push_back({token, logprobs[token]});
  }
  std::ranges::sort(*candidates, std::greater<>(), &BeamCandidate::logprob);
  candidates->resize(std::min(candidates->size(), static_cast<size_t>(count)));
}

void FakeModelRunner::emit_row(
    int position, int32_t given, int s, const FakeHistory& history, Output* output) {
  std::vector<float> row(info_.vocab_size, 0.0f);
  row[history.next_token(info_.vocab_size)] = 1.0f;
  output->logits.insert(output->logits.end(), row.begin(), row.end());
  SequenceLogprobs& logprobs = output->result.logprobs[s];
  if (given >= 0) logprobs.prompt.push_back({{given, static_cast<float>(position), 1}});
}

Status FakeModelRunner::collect(StepResult* result) {
  QUIRE_CHECK(!launched_.empty());
  collected_ = std::move(launched_.front());
  launched_.pop_front();
  *result = collected_.result;
  result->logits = collected_.logits;
  return Status();
}

}  // namespace quire
