#include "apps/bench_model.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/backend.h"

namespace quire {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Weights that every step multiplies with; the head only for rows whose logits are wanted.
struct LinearWeights {
  double body = 0, head = 0;
};

LinearWeights linear_weights(const ModelConfig& c) {
  const double e = c.hidden_size, d = c.head_dim;
  const double attention = e * d * (2.0 * c.num_heads + 2.0 * c.num_kv_heads);
  const double mlp = (c.activation == "silu" ? 3.0 : 2.0) * e * c.intermediate_size;
  return {c.num_layers * (attention + mlp), e * c.vocab_size};
}

}  // namespace

Result<std::unique_ptr<ModelBench>> ModelBench::create(const LoadedModel& loaded,
                                                       std::shared_ptr<const Model> model,
                                                       EngineConfig config,
                                                       const BenchPlan& plan) {
  std::unique_ptr<ModelBench> bench(new ModelBench);
  bench->loaded_ = &loaded;
  bench->plan_ = plan;
  const int max_batch = *std::max_element(plan.batches.begin(), plan.batches.end());
  const int max_depth = *std::max_element(plan.depths.begin(), plan.depths.end());
  const int length = max_depth + std::max(plan.prompt_tokens, plan.generate_tokens);
  if (length > model->config().max_position) {
    return invalid_argument("--depth " + std::to_string(max_depth) +
                            " and the tokens after it reach position " + std::to_string(length) +
                            "; the model's context is " +
                            std::to_string(model->config().max_position));
  }
  bench->blocks_per_sequence_ = (length + config.block_size - 1) / config.block_size;
  config.max_num_seqs = max_batch;
  config.max_num_batched_tokens = std::max(config.max_num_batched_tokens, max_batch);
  bench->max_step_tokens_ = config.max_num_batched_tokens;
  const ModelConfig& c = model->config();
  const DType dtype = config.kv_cache_dtype == "float32" ? DType::kF32 : DType::kF16;
  const KvLayout layout{dtype, config.block_size, c.num_kv_heads, c.head_dim};
  config.gpu_memory_utilization = 0;
  config.kv_cache_memory_bytes =
      kv_block_bytes(layout) * c.num_layers * bench->blocks_per_sequence_ * max_batch;
  config.max_model_len = length;
  QUIRE_ASSIGN_OR_RETURN(bench->runner_, CpuModelRunner::create(std::move(model), config));
  return bench;
}

// Token values do not matter for speed; KV before `start` is whatever the pool holds.
Status ModelBench::step(int batch, int start, int num_tokens, bool fresh) {
  batch_.clear();
  for (int s = 0; s < batch; ++s) {
    if (fresh) {
      batch_.new_sequences.push_back(
          {.slot = s,
           .sampling = {.temperature = 0},
           .end_tokens = {},
           .tokens = std::vector<int32_t>(static_cast<size_t>(start) + 1),
           .num_prompt = start + 1});
    }
    ScheduledSequence entry{};
    entry.id = s;
    entry.slot = s;
    entry.start = start;
    entry.num_tokens = num_tokens;
    entry.first_token = static_cast<int32_t>(batch_.tokens.size());
    entry.first_block = static_cast<int32_t>(batch_.block_ids.size());
    entry.num_blocks = blocks_per_sequence_;
    entry.first_row = s;
    entry.num_rows = 1;
    entry.next_token = -1;
    entry.samples = true;
    batch_.sequences.push_back(entry);
    for (int i = 0; i < num_tokens; ++i) {
      random_ = random_ * 1664525u + 1013904223u;
      batch_.tokens.push_back(static_cast<int32_t>(random_ % runner_->info().vocab_size));
    }
    for (int b = 0; b < blocks_per_sequence_; ++b) {
      batch_.block_ids.push_back(s * blocks_per_sequence_ + b);
    }
    batch_.logit_rows.push_back(static_cast<int32_t>(batch_.tokens.size()) - 1);
  }
  QUIRE_RETURN_IF_ERROR(runner_->launch(batch_));
  return runner_->collect(&result_);
}

Status ModelBench::run_prefill(BenchResult& result) {
  const auto start = std::chrono::steady_clock::now();
  int64_t steps = 0;
  for (int done = 0; done < plan_.prompt_tokens; ++steps) {
    const int n = std::min(max_step_tokens_, plan_.prompt_tokens - done);
    QUIRE_RETURN_IF_ERROR(step(1, result.depth + done, n, done == 0));
    done += n;
  }
  result.tokens = plan_.prompt_tokens;
  result.tokens_per_second.push_back(result.tokens / seconds_since(start));
  count_costs(result, steps);
  return {};
}

Status ModelBench::run_decode(BenchResult& result) {
  QUIRE_RETURN_IF_ERROR(step(result.batch, result.depth, 1, true));  // fills slots and caches
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < plan_.generate_tokens; ++i) {
    QUIRE_RETURN_IF_ERROR(step(result.batch, result.depth + i, 1, false));
  }
  result.tokens = result.batch * plan_.generate_tokens;
  result.tokens_per_second.push_back(result.tokens / seconds_since(start));
  count_costs(result, plan_.generate_tokens);
  return {};
}

void ModelBench::count_costs(BenchResult& result, int64_t steps) const {
  const ModelConfig& c = runner_->model().config();
  const LinearWeights weights = linear_weights(c);
  const bool decode = result.kind == "decode";
  const int new_tokens = decode ? plan_.generate_tokens : plan_.prompt_tokens;
  const double mean_context = result.depth + new_tokens / 2.0;
  const double head_rows = decode ? result.tokens : steps;
  const double linear = 2 * (weights.body * result.tokens + weights.head * head_rows);
  const double attention =
      4.0 * c.num_layers * c.num_heads * c.head_dim * mean_context * result.tokens;
  result.operations_per_token = (linear + attention) / result.tokens;

  // Every step reads all weights; an untied embedding is looked up, not read.
  const double table =
      c.tie_embeddings ? 0
                       : loaded_->weight_bytes * weights.head / (weights.body + 2 * weights.head);
  const double kv_token = static_cast<double>(runner_->kv_pool().bytes_per_token);
  const double kv_reads = decode ? kv_token * mean_context * result.tokens
                                 : kv_token * mean_context * static_cast<double>(steps);
  result.bytes_per_token =
      ((loaded_->weight_bytes - table) * static_cast<double>(steps) + kv_reads) / result.tokens;
}

}  // namespace quire
