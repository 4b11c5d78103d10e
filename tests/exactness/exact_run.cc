#include "exactness/exact_run.h"

#include <cstring>

#include "base/check.h"
#include "base/hash.h"
#include "engine/cpu_model_runner.h"
#include "kernels/backend.h"

namespace quire::testing {

namespace {

uint64_t bits_of(std::span<const float> row) {
  return hash_tokens(0, {reinterpret_cast<const int32_t*>(row.data()), row.size()});
}

DType dtype_of(const std::string& name) {
  return name == "float32" ? DType::kF32 : name == "bfloat16" ? DType::kBF16 : DType::kF16;
}

EngineConfig engine_config(const Model& model, const ExactSettings& s) {
  const ModelConfig& m = model.config();
  const KvLayout layout{dtype_of(s.kv_cache_dtype), s.block_size, m.num_kv_heads, m.head_dim};
  EngineConfig config;
  config.isa = s.isa;
  config.activations = s.activations;
  config.kv_cache_dtype = s.kv_cache_dtype;
  config.fusion = s.fusion;
  config.num_threads = s.num_threads;
  config.block_size = s.block_size;
  config.max_num_seqs = s.max_num_seqs;
  config.max_num_batched_tokens = 2048;
  config.long_prefill_token_threshold = s.chunk;
  config.enable_prefix_caching = s.prefix_caching;
  config.preemption_mode = s.preemption_mode == PreemptionMode::kSwap ? "swap" : "recompute";
  config.kv_cache_memory_bytes =
      kv_block_bytes(layout) * m.num_layers * ((s.num_kv_tokens + s.block_size - 1) / s.block_size);
  if (s.preemption_mode == PreemptionMode::kSwap) {
    config.swap_space_bytes = config.kv_cache_memory_bytes;
  }
  return config;
}

class Driver {
 public:
  Driver(std::shared_ptr<const Model> model, const ExactSettings& s) : settings_(s) {
    const EngineConfig config = engine_config(*model, s);
    auto runner = CpuModelRunner::create(std::move(model), config);
    QUIRE_CHECK_MSG(runner.ok(), runner.status().message().c_str());
    runner_ = std::move(runner).value();
    const RunnerInfo& info = runner_->info();
    scheduler_ = std::make_unique<Scheduler>(SchedulerConfig{config.max_num_seqs,
                                                             config.max_num_batched_tokens,
                                                             info.max_model_len,
                                                             config.long_prefill_token_threshold,
                                                             info.max_logit_rows,
                                                             config.enable_prefix_caching,
                                                             s.preemption_mode,
                                                             info.num_host_blocks},
                                             info.num_blocks,
                                             info.block_size);
  }

  void add(int prompt_index, const std::vector<int32_t>& prompt) {
    const int n = settings_.num_answers;
    for (int i = 0; i < (settings_.separate ? n : 1); ++i) {
      SequenceSpec spec;
      spec.prompt = prompt;
      spec.sampling.temperature = n == 1 ? 0 : 1;
      spec.sampling.n = settings_.separate ? 1 : n;
      spec.sampling.seed = i == 0 ? prompt_index : hash_combine(prompt_index, i);
      spec.sampling.max_tokens = settings_.max_tokens;
      spec.sampling.ignore_eos = true;
      spec.wants_all_rows = settings_.all_rows;
      const Result<SequenceId> id = scheduler_->add(std::move(spec));
      QUIRE_CHECK_MSG(id.ok(), id.status().message().c_str());
      prompt_of_[*id] = prompt_index * n + i;
      for (SequenceId other : scheduler_->sequence(*id).unforked) {
        prompt_of_[other] = prompt_index * n + scheduler_->sequence(other).sample_index;
      }
    }
  }

  void run_to_end(ExactRun* run) {
    while (scheduler_->has_work()) step(run);
  }

  void step(ExactRun* run) {
    scheduler_->schedule(&batch_);
    QUIRE_CHECK(!batch_.empty());
    QUIRE_CHECK(runner_->launch(batch_).ok() && runner_->collect(&result_).ok());
    keep_rows(run);
    scheduler_->commit(batch_, result_, &committed_);
    for (const CommittedSequence& done : committed_) {
      if (done.finish_reason == FinishReason::kNone) continue;
      const Sequence& seq = scheduler_->sequence(done.id);
      run->outputs[prompt_of_.at(done.id)].assign(seq.tokens.begin() + seq.num_prompt,
                                                  seq.tokens.end());
    }
    run->stats = scheduler_->stats();
  }

 private:
  void keep_rows(ExactRun* run) {
    for (const ScheduledSequence& s : batch_.sequences) {
      for (int i = 0; i < s.num_rows; ++i) {
        const int position = s.start + s.num_tokens - s.num_rows + i;
        const uint64_t bits = bits_of(result_.logits_row(s.first_row + i));
        const auto [entry, is_new] = run->bits.try_emplace({prompt_of_.at(s.id), position}, bits);
        if (entry->second != bits) run->consistent = false;
      }
    }
  }

  const ExactSettings settings_;
  std::unique_ptr<CpuModelRunner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<SequenceId, int> prompt_of_;
  ScheduledBatch batch_;
  StepResult result_;
  std::vector<CommittedSequence> committed_;
};

}  // namespace

ExactRun run_exactly(std::shared_ptr<const Model> model,
                     const std::vector<std::vector<int32_t>>& prompts,
                     const ExactSettings& settings) {
  ExactRun run;
  run.outputs.resize(prompts.size() * settings.num_answers);
  Driver driver(std::move(model), settings);
  for (int round = 0; round < settings.rounds; ++round) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      driver.add(static_cast<int>(i), prompts[i]);
      if (settings.one_at_a_time) driver.run_to_end(&run);
      const uint64_t steps = settings.arrival_seed == 0 ? 0 : mix64(settings.arrival_seed + i) % 4;
      for (uint64_t step = 0; step < steps; ++step) driver.step(&run);
    }
    driver.run_to_end(&run);
  }
  return run;
}

std::string first_difference(const ExactRun& run, const ExactRun& reference) {
  if (!run.consistent) return "one row came with two values";
  if (run.outputs != reference.outputs) return "other tokens were generated";
  for (const auto& [where, bits] : run.bits) {
    const auto found = reference.bits.find(where);
    if (found != reference.bits.end() && found->second == bits) continue;
    return "prompt " + std::to_string(where.first) + ", position " + std::to_string(where.second);
  }
  return "";
}

}  // namespace quire::testing
