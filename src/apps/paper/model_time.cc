#include "apps/paper/model_time.h"

#include <cmath>

#include "base/hash.h"

namespace quire {
namespace {

class ModelTimeMachine : public PaperMachine {
 public:
  ModelTimeMachine(const CostModel& cost, const PaperRun& run, int block_size)
      : cost_(cost),
        policy_(run.system.kv_policy),
        block_size_(block_size),
        beam_certainty_(run.beam_certainty),
        random_(mix64(run.seed)) {}

  Result<double> compute(const Scheduler& scheduler,
                         const ScheduledBatch& batch,
                         StepResult* result) override;
  Result<double> seconds_to_prefill(int num_tokens) override;
  double seconds_to_swap(int num_blocks) override {
    return 2 * quire::seconds_to_swap(cost_, num_blocks, block_size_);
  }

 private:
  void list_candidates(int count, std::vector<BeamCandidate>* candidates);

  const CostModel& cost_;
  const KvPolicy policy_;
  const int block_size_;
  const double beam_certainty_;
  uint64_t random_;
};

Result<double> ModelTimeMachine::compute(const Scheduler& scheduler,
                                         const ScheduledBatch& batch,
                                         StepResult* result) {
  result->clear(static_cast<int>(batch.sequences.size()));
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ScheduledSequence& entry = batch.sequences[i];
    const int beam_width = scheduler.sequence(entry.id).sampling.beam_width;
    if (entry.samples && beam_width > 0) {
      list_candidates(beam_width, &result->beam_candidates[i]);
    } else if (entry.samples) {
      result->tokens.push_back(0);
    }
    result->token_start[i + 1] = static_cast<int32_t>(result->tokens.size());
  }
  return seconds_of_step(cost_, batch, block_size_, policy_);
}

// A stand-in for the model: log-probabilities that fall off by exponential gaps, and at certain
// steps one token that leaves the others far behind. Only ratios of gaps decide who goes on.
void ModelTimeMachine::list_candidates(int count, std::vector<BeamCandidate>* candidates) {
  constexpr double kFar = 1000;
  const auto uniform = [&] {
    random_ = mix64(random_ + 0x9e3779b97f4a7c15u);
    return (static_cast<double>(random_ >> 11) + 0.5) * 0x1p-53;
  };
  const bool is_certain = uniform() < beam_certainty_;
  double logprob = is_certain ? 0 : std::log(uniform());
  for (int i = 0; i < count; ++i) {
    candidates->push_back({i, logprob});
    logprob -= is_certain ? kFar : -std::log(uniform());
  }
}

Result<double> ModelTimeMachine::seconds_to_prefill(int num_tokens) {
  ScheduledBatch batch;
  batch.tokens.resize(num_tokens);
  ScheduledSequence entry{};
  entry.num_tokens = num_tokens;
  batch.sequences.push_back(entry);
  return seconds_of_step(cost_, batch, block_size_, KvPolicy::kPaged) - cost_.step_seconds;
}

}  // namespace

ModelTimePlatform::ModelTimePlatform(const CostModel& cost)
    : cost_(cost),
      sizes_{.max_model_len = static_cast<int>(cost.max_model_len),
             .max_num_seqs = static_cast<int>(cost.max_num_seqs),
             .max_num_batched_tokens = static_cast<int>(cost.max_num_batched_tokens),
             .block_size = static_cast<int>(cost.block_size),
             .kv_tokens = static_cast<int64_t>(cost.kv_memory_bytes / cost.kv_bytes_per_token())} {}

Result<std::unique_ptr<PaperMachine>> ModelTimePlatform::machine(const PaperRun& run) const {
  return std::unique_ptr<PaperMachine>(new ModelTimeMachine(cost_, run, block_size(run)));
}

}  // namespace quire
