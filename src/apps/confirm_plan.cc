#include "apps/confirm_plan.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/memory.h"

namespace quire {
namespace {

// The same engine for steps of so many tokens and sequences, with a pool of what they take.
LlmConfig with_little_kv(LlmConfig config, const LlmPlan& plan, const PlanConfirmation& steps) {
  EngineConfig& e = config.engine;
  const int64_t prompt_blocks = (steps.num_tokens + e.block_size - 1) / e.block_size;
  e.max_num_seqs = steps.num_seqs;
  e.max_num_batched_tokens = std::max(steps.num_tokens, steps.num_seqs);
  e.kv_cache_memory_bytes = (prompt_blocks + steps.num_seqs) * plan.memory.kv.block_bytes;
  e.gpu_memory_utilization = 0;
  e.max_model_len = steps.num_tokens + 2;
  e.long_prefill_token_threshold = 0;
  e.preemption_mode = "recompute";
  e.swap_space_bytes = 0;
  e.kv_policy = "paged";
  e.batching = "continuous";
  return config;
}

// The largest that the plan allows.
PlanConfirmation largest_steps(const EngineConfig& e, const LlmPlan& plan) {
  const KvPoolPlan& kv = plan.memory.kv;
  const int64_t longest = std::min<int64_t>(
      std::min(kv.max_model_len, plan.info.config.max_position) - 2, kv.num_tokens - e.block_size);
  PlanConfirmation steps;
  steps.num_tokens =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(longest, e.max_num_batched_tokens)));
  const int64_t prompt_blocks = (steps.num_tokens + e.block_size - 1) / e.block_size;
  steps.num_seqs = static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>(kv.num_blocks - prompt_blocks, e.max_num_seqs)));
  return steps;
}

Status run_steps(Llm& llm, int num_tokens, int num_seqs) {
  GenerateRequest request;
  std::vector<TokenId> prompt(num_tokens);
  for (int i = 0; i < num_tokens; ++i) prompt[i] = i % llm.model_config().vocab_size;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 1;
  request.sampling.n = num_seqs;
  request.sampling.max_tokens = 2;
  request.sampling.ignore_eos = true;
  QUIRE_ASSIGN_OR_RETURN(TextStream stream, llm.submit(std::move(request)));
  while (const std::optional<TextDelta> delta = stream.next()) {
    QUIRE_RETURN_IF_ERROR(delta->error);
  }
  return {};
}

}  // namespace

bool PlanConfirmation::holds() const {
  const int64_t off = std::abs(measured_bytes - planned_bytes);
  return off <= planned_bytes / 100 + (int64_t{4} << 20);
}

Result<PlanConfirmation> confirm_plan(const LlmConfig& config, const LlmPlan& plan) {
  PlanConfirmation confirmation = largest_steps(config.engine, plan);
  const LlmConfig small = with_little_kv(config, plan, confirmation);
  QUIRE_ASSIGN_OR_RETURN(const LlmPlan planned, plan_llm(small));
  const MemoryPlan& m = planned.memory;
  const int64_t unused_rows = m.max_logit_rows - confirmation.num_seqs;
  confirmation.planned_bytes =
      m.peak_bytes() - unused_rows * plan.info.config.vocab_size * int64_t{sizeof(float)};
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(small));
  QUIRE_RETURN_IF_ERROR(run_steps(*llm, confirmation.num_tokens, confirmation.num_seqs));
  confirmation.measured_bytes = peak_resident_bytes();
  return confirmation;
}

}  // namespace quire
