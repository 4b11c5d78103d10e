// A model whose next token is a hash of everything it can see, through a KV memory that is really
// addressed by block tables: a block that is lost, shared wrongly or written twice changes tokens.
#pragma once

#include <cmath>
#include <deque>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "engine/model_runner.h"

namespace quire {

// What the model says about one sequence: the definition that tests compare with.
struct FakeHistory {
  uint64_t content;  // of the last token's KV: depends on all tokens up to it
  uint64_t seen;     // of all KV contents so far

  explicit FakeHistory(uint64_t salt) : content(salt), seen(0) {}
  void append(int32_t token) { append_content(next_content(content, token)); }
  void append_content(uint64_t value) {
    content = value;
    seen = mix64(seen * 31 + value);
  }
  // What answer `sample_index` of n draws.
  int32_t next_token(int vocab_size, int sample_index = 0) const {
    return static_cast<int32_t>(mix64(seen ^ (0x1234567 + sample_index)) % vocab_size);
  }
  // Of every token of the vocabulary, as good as never equal.
  std::vector<double> logprobs(int vocab_size) const {
    std::vector<double> values(vocab_size);
    for (int token = 0; token < vocab_size; ++token) {
      const uint64_t random = mix64(seen ^ mix64(0x7654321 + token));
      values[token] = -4 * std::ldexp(static_cast<double>(random >> 11), -53);
    }
    return values;
  }
  static uint64_t next_content(uint64_t previous, int32_t token) {
    return mix64(previous * 3 + static_cast<uint32_t>(token) + 1);
  }
};

// The fake model's KV depends on the salt, as if salts were different models: a hit across salts is
// visible. It travels as the request's seed.
inline uint64_t fake_salt_seed(std::string_view salt) { return hash_string(salt) | 1; }

class FakeModelRunner : public ModelRunner {
 public:
  explicit FakeModelRunner(RunnerInfo info)
      : info_(std::move(info)),
        kv_(static_cast<size_t>(info_.num_blocks) * info_.block_size, 0),
        slots_(1024) {}

  const RunnerInfo& info() const override { return info_; }
  Status launch(const ScheduledBatch& batch) override;
  Status collect(StepResult* result) override;

  uint64_t kv(int64_t slot) const { return kv_[slot]; }
  // Of the host pool, where blocks are swapped to.
  void set_num_host_blocks(int count) {
    host_kv_.assign(static_cast<size_t>(count) * info_.block_size, 0);
  }
  int64_t num_launched() const { return num_launched_; }

  // Test controls: the launch (counted from 0) that fails, the sequence step that gives NaN logits.
  int64_t fail_at_launch = -1;
  int64_t invalid_at_launch = -1;

 private:
  struct Slot {
    uint64_t salt = 0;
    int32_t last_token = 0;
    int num_prompt = 0, sample_index = 0;
    bool prompt_logprobs = false, logprobs = false;
    int num_candidates = 0;  // of a beam
  };
  struct Output {
    StepResult result;
    std::vector<float> logits;
  };
  void copy_blocks(const std::vector<BlockCopy>& copies,
                   const std::vector<uint64_t>& from,
                   std::vector<uint64_t>* to) const;
  void write_kv(const ScheduledBatch& batch);
  void read_kv(const ScheduledBatch& batch, Output* output);
  void list_candidates(int count,
                       const FakeHistory& history,
                       std::vector<BeamCandidate>* candidates) const;
  void emit_row(int position, int32_t given, int s, const FakeHistory& history, Output* output);

  RunnerInfo info_;
  std::vector<uint64_t> kv_, host_kv_;
  std::vector<Slot> slots_;
  FakeHistory row_history_{0};  // of the last entry read
  std::deque<Output> launched_;
  Output collected_;
  int64_t num_launched_ = 0;
};

}  // namespace quire
