#include "apps/paper/measured.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>

#include "engine/cpu_model_runner.h"
#include "frontend/text_model.h"
#include "kernels/backend.h"

namespace quire {
namespace {

class MeasuredMachine : public PaperMachine {
 public:
  MeasuredMachine(const MeasuredPlatform& platform, std::unique_ptr<CpuModelRunner> runner)
      : platform_(platform), runner_(std::move(runner)) {}

  Result<double> compute(const Scheduler&,
                         const ScheduledBatch& batch,
                         StepResult* result) override {
    return compute(batch, result);
  }
  Result<double> seconds_to_prefill(int num_tokens) override;
  double seconds_to_swap(int num_blocks) override {
    return num_blocks * runner_->info().swap_seconds_per_block;
  }

 private:
  Result<double> compute(const ScheduledBatch& batch, StepResult* result);

  const MeasuredPlatform& platform_;
  std::unique_ptr<CpuModelRunner> runner_;
};

Result<double> MeasuredMachine::compute(const ScheduledBatch& batch, StepResult* result) {
  const auto start = std::chrono::steady_clock::now();
  QUIRE_RETURN_IF_ERROR(runner_->launch(batch));
  QUIRE_RETURN_IF_ERROR(runner_->collect(result));
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The median of five.
Result<double> MeasuredMachine::seconds_to_prefill(int num_tokens) {
  const int num_blocks = num_blocks_for(num_tokens, runner_->info().block_size);
  ScheduledBatch batch;
  ScheduledSequence entry{};
  entry.num_tokens = num_tokens;
  entry.num_blocks = num_blocks;
  entry.next_token = -1;
  batch.sequences.push_back(entry);
  for (int i = 0; i < num_tokens; ++i) batch.tokens.push_back(platform_.token(0, i));
  for (int b = 0; b < num_blocks; ++b) batch.block_ids.push_back(b);
  std::array<double, 5> seconds;
  StepResult result;
  for (double& s : seconds) {
    QUIRE_ASSIGN_OR_RETURN(s, compute(batch, &result));
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

PaperSizes measured_sizes(const PaperSizes& paper) {
  constexpr int kScale = 8;
  PaperSizes sizes = paper;
  sizes.length_scale = kScale;
  sizes.max_model_len /= kScale;
  sizes.kv_tokens /= kScale;
  sizes.block_size = 4;
  sizes.max_num_batched_tokens = 512;
  return sizes;
}

Result<std::unique_ptr<MeasuredPlatform>> MeasuredPlatform::load(const std::string& model,
                                                                 int num_threads,
                                                                 const PaperSizes& sizes,
                                                                 std::string_view text) {
  std::unique_ptr<MeasuredPlatform> platform(new MeasuredPlatform);
  platform->sizes_ = sizes;
  platform->num_threads_ = num_threads > 0 ? num_threads : default_num_threads();
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(model));
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded,
                         load_model(path, {.num_threads = platform->num_threads_}));
  QUIRE_ASSIGN_OR_RETURN(const TextModel texts, make_text_model(loaded.info));
  QUIRE_ASSIGN_OR_RETURN(platform->text_, texts.tokenizer.encode(text, {}));
  platform->model_ = std::move(loaded.model);
  const int context = platform->model_->config().max_position;
  if (context < sizes.max_model_len) {
    return invalid_argument("--model " + model + " has a context of " + std::to_string(context) +
                            " tokens; the figures need " + std::to_string(sizes.max_model_len));
  }
  platform->name_ = model + " on " + std::to_string(platform->num_threads_) + " threads";
  return platform;
}

int32_t MeasuredPlatform::token(int prompt, int position) const {
  constexpr uint64_t kStride = 613;  // a prime, so that prompts start at different places
  return text_[(prompt * kStride + position) % text_.size()];
}

Result<std::unique_ptr<PaperMachine>> MeasuredPlatform::machine(const PaperRun& run) const {
  const ModelConfig& m = model_->config();
  EngineConfig config;
  config.max_model_len = sizes_.max_model_len;
  config.max_num_seqs = sizes_.max_num_seqs;
  config.max_num_batched_tokens = std::max(sizes_.max_num_batched_tokens, sizes_.max_num_seqs);
  config.block_size = block_size(run);
  config.num_threads = num_threads_;
  const KvLayout layout{kv_cache_type(config), config.block_size, m.num_kv_heads, m.head_dim};
  config.kv_cache_memory_bytes =
      kv_block_bytes(layout) * m.num_layers * sizes_.num_blocks(config.block_size);
  if (run.swaps) {
    config.preemption_mode = "swap";
    config.swap_space_bytes = config.kv_cache_memory_bytes;
  }
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<CpuModelRunner> runner,
                         CpuModelRunner::create(model_, config));
  return std::unique_ptr<PaperMachine>(new MeasuredMachine(*this, std::move(runner)));
}

}  // namespace quire
