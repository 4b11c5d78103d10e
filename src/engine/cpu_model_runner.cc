#include "engine/cpu_model_runner.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <string>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/parallel.h"

namespace quire {

CpuModelRunner::CpuModelRunner(std::shared_ptr<const Model> model, Workspace workspace, KvCache kv)
    : model_(std::move(model)), workspace_(std::move(workspace)), kv_(std::move(kv)) {}

Result<std::unique_ptr<CpuModelRunner>> CpuModelRunner::create(std::shared_ptr<const Model> model,
                                                               const EngineConfig& config) {
  QUIRE_RETURN_IF_ERROR(config.validate());
  const MemoryFacts memory = memory_facts();
  const MemoryPlan plan =
      plan_memory(config,
                  *model,
                  {.total_bytes = memory.total_bytes, .available_bytes = memory.available_bytes});
  return create(std::move(model), config, plan);
}

Result<std::unique_ptr<CpuModelRunner>> CpuModelRunner::create(std::shared_ptr<const Model> model,
                                                               const EngineConfig& config,
                                                               const MemoryPlan& plan) {
  QUIRE_RETURN_IF_ERROR(plan.refusal);
  QUIRE_ASSIGN_OR_RETURN(const OpTable* ops, select_ops(config.isa));
  const ModelConfig& m = model->config();
  QUIRE_ASSIGN_OR_RETURN(Workspace workspace, Workspace::allocate(plan.activation_bytes));
  QUIRE_ASSIGN_OR_RETURN(HugeBuffer logits, HugeBuffer::allocate(plan.logits_bytes, "logits"));
  QUIRE_ASSIGN_OR_RETURN(HugeBuffer scratch,
                         HugeBuffer::allocate(plan.scratch_reserved, "scratch of the threads"));
  const KvLayout layout{kv_cache_type(config), config.block_size, m.num_kv_heads, m.head_dim};
  QUIRE_ASSIGN_OR_RETURN(KvCache kv, KvCache::allocate(layout, m.num_layers, plan.kv.num_blocks));

  std::unique_ptr<CpuModelRunner> runner(
      new CpuModelRunner(std::move(model), std::move(workspace), std::move(kv)));
  if (plan.num_host_blocks > 0) {
    QUIRE_ASSIGN_OR_RETURN(
        runner->host_kv_,
        KvCache::allocate(layout, m.num_layers, plan.num_host_blocks, "--swap-space"));
  }
  runner->info_ = {.num_blocks = static_cast<int>(plan.kv.num_blocks),
                   .block_size = config.block_size,
                   .vocab_size = m.vocab_size,
                   .max_model_len = plan.kv.max_model_len,
                   .max_logit_rows = plan.max_logit_rows,
                   .num_host_blocks = static_cast<int>(plan.num_host_blocks),
                   .max_in_flight = 1,
                   .eos_token_ids = m.eos_token_ids};
  if (plan.num_host_blocks > 0) runner->measure_swapping();
  runner->memory_ = plan;
  runner->ops_ = ops;
  runner->activations_ = activation_type(config);
  runner->threads_ = std::make_unique<ThreadPool>(plan.num_threads);
  runner->scratch_ = std::move(scratch);
  runner->logits_ = std::move(logits);
  runner->sampler_ = std::make_unique<Sampler>(config.max_num_seqs, m.vocab_size);
  runner->sampler_scratch_.resize(plan.num_threads);
  runner->last_token_.resize(config.max_num_seqs);
  return runner;
}

// The median of a few blocks, out and back in again.
void CpuModelRunner::measure_swapping() {
  using Clock = std::chrono::steady_clock;
  std::array<double, 5> seconds;
  for (double& s : seconds) {
    const auto start = Clock::now();
    host_kv_.copy_block(kv_, 0, 0);
    kv_.copy_block(host_kv_, 0, 0);
    s = std::chrono::duration<double>(Clock::now() - start).count();
  }
  std::ranges::sort(seconds);
  info_.swap_seconds_per_block = seconds[seconds.size() / 2];
}

Status CpuModelRunner::launch(const ScheduledBatch& batch) {
  for (const NewSequence& fresh : batch.new_sequences) sampler_->add(fresh);
  for (const auto& copy : batch.swap_out) host_kv_.copy_block(kv_, copy.source, copy.destination);
  for (const auto& copy : batch.swap_in) kv_.copy_block(host_kv_, copy.source, copy.destination);
  for (const auto& copy : batch.copies) kv_.copy_block(kv_, copy.source, copy.destination);
  if (!batch.tokens.empty()) {
    build_inputs(batch);
    forward(batch);
  }
  sample_all(batch);
  return Status();
}

Status CpuModelRunner::collect(StepResult* result) {
  std::swap(*result, result_);
  return Status();
}

void CpuModelRunner::build_inputs(const ScheduledBatch& batch) {
  const size_t num_tokens = batch.tokens.size();
  tokens_ = batch.tokens;
  positions_.resize(num_tokens);
  slots_.resize(num_tokens);
  query_start_.assign(1, 0);
  kv_len_.clear();
  block_table_stride_ = 1;
  for (const ScheduledSequence& s : batch.sequences) {
    block_table_stride_ = std::max(block_table_stride_, s.num_blocks);
  }
  block_tables_.resize(batch.sequences.size() * block_table_stride_);
  for (const ScheduledSequence& s : batch.sequences) {
    if (s.only_samples()) continue;
    const auto blocks = batch.blocks_of(s);
    std::ranges::copy(blocks, block_tables_.begin() + kv_len_.size() * block_table_stride_);
    for (int j = 0; j < s.num_tokens; ++j) {
      const int t = s.first_token + j;
      if (tokens_[t] == kPendingToken) tokens_[t] = last_token_[s.slot];
      positions_[t] = s.start + j;
      slots_[t] = j < s.num_unwritten ? -1 : kv_slot(blocks, s.start + j, info_.block_size);
    }
    query_start_.push_back(s.first_token + s.num_tokens);
    kv_len_.push_back(s.start + s.num_tokens);
  }
}

void CpuModelRunner::forward(const ScheduledBatch& batch) {
  const int64_t rows = static_cast<int64_t>(batch.logit_rows.size());
  ForwardContext context{};
  context.ops = ops_;
  context.exec = {make_parallel(*threads_), scratch_.data()};
  context.activations = activations_;
  context.batch = {tokens_,
                   positions_,
                   slots_,
                   query_start_,
                   kv_len_,
                   block_tables_,
                   block_table_stride_,
                   batch.logit_rows};
  context.kv = &kv_;
  context.workspace = &workspace_;
  context.logits = {
      reinterpret_cast<float*>(logits_.data()), rows, info_.vocab_size, info_.vocab_size};
  workspace_.reset();
  model_->forward(context);
}

// Sequences are spread over the threads; a token does not depend on which one draws it.
void CpuModelRunner::sample_all(const ScheduledBatch& batch) {
  const int num_seqs = static_cast<int>(batch.sequences.size());
  result_.clear(num_seqs);
  result_.vocab_size = info_.vocab_size;
  result_.logits = {reinterpret_cast<const float*>(logits_.data()),
                    batch.logit_rows.size() * info_.vocab_size};
  sampled_.assign(num_seqs, kInvalidToken);
  struct Job {
    CpuModelRunner* runner;
    const ScheduledBatch* batch;
  } job{this, &batch};
  threads_->run(
      [](void* arg, int32_t thread, int32_t num_threads) {
        const Job& job = *static_cast<Job*>(arg);
        const int count = static_cast<int>(job.batch->sequences.size());
        for (int i = thread; i < count; i += num_threads) {
          job.runner->sample_one(*job.batch, i, &job.runner->sampler_scratch_[thread]);
        }
      },
      &job);
  for (int i = 0; i < num_seqs; ++i) {
    const ScheduledSequence& s = batch.sequences[i];
    if (s.samples && !sampler_->is_beam(s.slot)) result_.tokens.push_back(sampled_[i]);
    result_.token_start[i + 1] = static_cast<int32_t>(result_.tokens.size());
  }
}

void CpuModelRunner::sample_one(const ScheduledBatch& batch, int index, SamplerScratch* scratch) {
  const ScheduledSequence& s = batch.sequences[index];
  SequenceLogprobs& logprobs = result_.logprobs[index];
  if (sampler_->wants_prompt_logprobs(s.slot)) {
    for (int i = 0; i < s.num_rows; ++i) {
      const int after = s.num_tokens - s.num_rows + i + 1;  // the token that row i predicts
      const int32_t given =
          after < s.num_tokens ? batch.tokens[s.first_token + after] : s.next_token;
      if (given < 0) continue;
      logprobs.prompt.push_back(
          sampler_->prompt_logprobs(s.slot, given, result_.logits_row(s.first_row + i), scratch));
    }
  }
  if (!s.samples) return;
  if (sampler_->is_beam(s.slot)) {
    sampler_->beam_candidates(s.slot,
                              s.start + s.num_tokens,
                              result_.logits_row(s.first_row + s.num_rows - 1),
                              scratch,
                              &result_.beam_candidates[index]);
    return;
  }
  const int32_t token = sampler_->sample(s.slot,
                                         s.start + s.num_tokens,
                                         result_.logits_row(s.first_row + s.num_rows - 1),
                                         scratch,
                                         &logprobs.sampled);
  sampled_[index] = token;
  last_token_[s.slot] = token;
}

}  // namespace quire
