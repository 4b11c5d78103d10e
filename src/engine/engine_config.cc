#include "engine/engine_config.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "base/thread_pool.h"

namespace quire {

namespace {

Status at_least(const char* flag, int64_t value, int64_t least, const char* remedy) {
  if (value >= least) return Status();
  return invalid_argument(std::string(flag) + " must be at least " + std::to_string(least) +
                          ", got " + std::to_string(value) + remedy);
}

Status one_of(const char* flag, const std::string& value, std::initializer_list<const char*> all) {
  std::string names;
  for (const char* name : all) {
    if (value == name) return Status();
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return invalid_argument(std::string(flag) + " must be one of " + names + "; got '" + value + "'");
}

Status validate_preemption(const EngineConfig& config) {
  QUIRE_RETURN_IF_ERROR(
      one_of("--preemption-mode", config.preemption_mode, {"recompute", "swap", "auto"}));
  QUIRE_RETURN_IF_ERROR(at_least("--swap-space", config.swap_space_bytes, 0, ""));
  const bool swaps = config.preemption_mode != "recompute";
  if (swaps == (config.swap_space_bytes > 0)) return Status();
  return invalid_argument(
      swaps ? "--preemption-mode " + config.preemption_mode +
                  " needs a host pool: set --swap-space to its bytes"
            : "--swap-space is " + std::to_string(config.swap_space_bytes) +
                  ", but --preemption-mode recompute never swaps: say --preemption-mode swap");
}

// The first of the names is the product; the others are for experiments and combine with less.
Status validate_policies(const EngineConfig& config) {
  QUIRE_RETURN_IF_ERROR(
      one_of("--kv-policy", config.kv_policy, {"paged", "max", "pow2", "oracle", "grow", "off"}));
  QUIRE_RETURN_IF_ERROR(one_of("--batching", config.batching, {"continuous", "dynamic", "static"}));
  QUIRE_RETURN_IF_ERROR(at_least("--batch-size", config.batch_size, 1, ""));
  QUIRE_RETURN_IF_ERROR(at_least("--batch-window-ms", config.batch_window_ms, 0, ""));
  if (config.kv_policy != "paged" && config.preemption_mode != "recompute") {
    return invalid_argument("--preemption-mode " + config.preemption_mode +
                            " swaps KV blocks, but --kv-policy " + config.kv_policy +
                            " has none to swap: say --kv-policy paged or --preemption-mode "
                            "recompute");
  }
  if (config.kv_policy == "off" && config.long_prefill_token_threshold > 0) {
    return invalid_argument("--long-prefill-token-threshold is " +
                            std::to_string(config.long_prefill_token_threshold) +
                            ", but --kv-policy off computes a sequence in one piece: leave it 0");
  }
  if (config.batching != "continuous" && config.batch_size > config.max_num_seqs) {
    return invalid_argument("--batch-size is " + std::to_string(config.batch_size) +
                            ", more than --max-num-seqs " + std::to_string(config.max_num_seqs) +
                            " may run: lower the first or raise the second");
  }
  return Status();
}

}  // namespace

Status EngineConfig::validate() const {
  QUIRE_RETURN_IF_ERROR(
      at_least("--max-model-len", max_model_len, 0, " (0 = the model's own context length)"));
  QUIRE_RETURN_IF_ERROR(at_least("--max-num-seqs", max_num_seqs, 1, ""));
  QUIRE_RETURN_IF_ERROR(at_least("--max-num-batched-tokens", max_num_batched_tokens, 1, ""));
  QUIRE_RETURN_IF_ERROR(at_least("--max-num-queued-reqs", max_num_queued_reqs, 1, ""));
  QUIRE_RETURN_IF_ERROR(at_least(
      "--long-prefill-token-threshold", long_prefill_token_threshold, 0, " (0 = no limit)"));
  QUIRE_RETURN_IF_ERROR(at_least("--max-logprobs", max_logprobs, -1, " (-1 = no limit)"));
  QUIRE_RETURN_IF_ERROR(at_least("--threads", num_threads, 0, " (0 = every core)"));
  if (num_threads > kMaxThreads) {
    return invalid_argument("--threads must be at most " + std::to_string(kMaxThreads) + ", got " +
                            std::to_string(num_threads) + "; this process may use " +
                            std::to_string(default_num_threads()) +
                            " cores, and more threads than that only wait (0 = every core)");
  }
  QUIRE_RETURN_IF_ERROR(at_least(
      "--kv-cache-memory-bytes", kv_cache_memory_bytes, 0, " (0 = a share of the free memory)"));
  if (block_size < 1 || block_size > 256 || !std::has_single_bit(unsigned(block_size))) {
    return invalid_argument("--block-size must be a power of two in [1, 256], got " +
                            std::to_string(block_size) + "; 16 is the default");
  }
  if (max_num_batched_tokens < max_num_seqs) {
    return invalid_argument("--max-num-batched-tokens is " +
                            std::to_string(max_num_batched_tokens) +
                            ", less than one token for each of --max-num-seqs " +
                            std::to_string(max_num_seqs) + ": raise the first or lower the second");
  }
  if (!(kv_cache_memory_share > 0 && kv_cache_memory_share <= 1)) {
    return invalid_argument("--kv-cache-memory-share must be in (0, 1], got " +
                            std::to_string(kv_cache_memory_share));
  }
  if (!(gpu_memory_utilization >= 0 && gpu_memory_utilization <= 1)) {
    return invalid_argument("--gpu-memory-utilization must be in [0, 1], got " +
                            std::to_string(gpu_memory_utilization) +
                            " (0 = --kv-cache-memory-share of the free memory)");
  }
  if (gpu_memory_utilization > 0 && kv_cache_memory_bytes > 0) {
    return invalid_argument("--gpu-memory-utilization " + std::to_string(gpu_memory_utilization) +
                            " and --kv-cache-memory-bytes " +
                            std::to_string(kv_cache_memory_bytes) +
                            " both size the KV pool: leave out one of them");
  }
  QUIRE_RETURN_IF_ERROR(one_of("--kv-cache-dtype",
                               kv_cache_dtype,
                               {"auto", "float16", "bfloat16", "float32", "f16", "bf16", "f32"}));
  QUIRE_RETURN_IF_ERROR(validate_preemption(*this));
  QUIRE_RETURN_IF_ERROR(validate_policies(*this));
  return one_of("--activations", activations, {"int16", "int8", "f32"});
}

std::string KvPoolPlan::to_string() const {
  char line[256];
  std::snprintf(
      line,
      sizeof line,
      "KV pool: %lld blocks x %lld bytes = %.1f MiB for %lld tokens (%lld bytes a token), "
      "--max-model-len %d",
      static_cast<long long>(num_blocks),
      static_cast<long long>(block_bytes),
      static_cast<double>(pool_bytes) / (1 << 20),
      static_cast<long long>(num_tokens),
      static_cast<long long>(bytes_per_token),
      max_model_len);
  return line;
}

namespace {

Status too_small(const EngineConfig& config, const KvPoolPlan& plan, int64_t needed_blocks) {
  const bool utilised = config.gpu_memory_utilization > 0;
  const std::string left = " (" + std::to_string(plan.pool_bytes) + " bytes)";
  const std::string source =
      config.kv_cache_memory_bytes > 0
          ? "--kv-cache-memory-bytes " + std::to_string(config.kv_cache_memory_bytes)
      : utilised ? "what --gpu-memory-utilization leaves" + left
                 : "the share of free memory" + left;
  return resource_exhausted(
      source + " holds " + std::to_string(plan.num_blocks) + " KV blocks of " +
      std::to_string(plan.block_bytes) + " bytes, but one sequence needs " +
      std::to_string(needed_blocks) + " (" + std::to_string(needed_blocks * plan.block_bytes) +
      " bytes): raise " + (utilised ? "--gpu-memory-utilization" : "--kv-cache-memory-bytes") +
      " or lower --max-model-len");
}

}  // namespace

Result<KvPoolPlan> plan_kv_pool(const EngineConfig& config, const KvPoolInputs& inputs) {
  Status refusal;
  const KvPoolPlan plan = size_kv_pool(config, inputs, &refusal);
  QUIRE_RETURN_IF_ERROR(refusal);
  return plan;
}

KvPoolPlan size_kv_pool(const EngineConfig& config, const KvPoolInputs& inputs, Status* refusal) {
  constexpr int64_t kMostBlocks = 1 << 28;  // block ids and token counts are 32-bit
  KvPoolPlan plan;
  plan.block_bytes = inputs.block_bytes_per_layer * inputs.num_layers;
  plan.bytes_per_token = (plan.block_bytes + config.block_size - 1) / config.block_size;
  const bool utilised = config.gpu_memory_utilization > 0;
  const bool exact = config.kv_cache_memory_bytes > 0 || utilised;
  const int64_t budget =
      utilised ? inputs.free_memory_bytes
      : exact  ? config.kv_cache_memory_bytes
               : static_cast<int64_t>(config.kv_cache_memory_share * inputs.free_memory_bytes);
  const int wanted_len = config.max_model_len > 0 ? config.max_model_len : inputs.model_max_len;
  const int64_t blocks_per_sequence = (wanted_len + config.block_size - 1) / config.block_size;
  plan.num_blocks = std::min(budget / plan.block_bytes, kMostBlocks / config.block_size);
  if (!exact) {
    plan.num_blocks = std::min(plan.num_blocks, blocks_per_sequence * config.max_num_seqs);
  }
  plan.pool_bytes = plan.num_blocks * plan.block_bytes;
  plan.num_tokens = plan.num_blocks * config.block_size;
  plan.max_model_len = static_cast<int>(std::min<int64_t>(wanted_len, plan.num_tokens));
  if (config.max_model_len > inputs.model_max_len) {
    *refusal = invalid_argument("--max-model-len is " + std::to_string(config.max_model_len) +
                                ", but the model's context is " +
                                std::to_string(inputs.model_max_len) + " tokens: lower it");
  } else if (plan.num_blocks < 1) {
    *refusal = too_small(config, plan, 1);
  } else if (config.max_model_len > 0 && plan.num_blocks < blocks_per_sequence) {
    *refusal = too_small(config, plan, blocks_per_sequence);
  }
  return plan;
}

}  // namespace quire
