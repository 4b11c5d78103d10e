#include "engine/memory_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/mutants.h"
#include "base/thread_pool.h"
#include "engine/sampler.h"
#include "kernels/backend.h"
#include "kv/block_pool.h"

namespace quire {

DType kv_cache_type(const EngineConfig& config) {
  const std::string& name = config.kv_cache_dtype;
  if (name == "float32" || name == "f32") return DType::kF32;
  if (name == "bfloat16" || name == "bf16") return DType::kBF16;
  return DType::kF16;
}

ActivationType activation_type(const EngineConfig& config) {
  if (config.activations == "f32") return ActivationType::kF32;
  return config.activations == "int8" ? ActivationType::kInt8 : ActivationType::kInt16;
}

FusionSet fusion_set(const EngineConfig& config) {
  const Result<FusionSet> set = FusionSet::parse(config.fusion);
  const Result<const OpTable*> ops = select_ops(config.isa);
  QUIRE_CHECK_MSG(set.ok(), "the configuration is not valid");
  return ops.ok() ? set->supported_by(**ops) : *set;
}

int64_t MemoryPlan::fixed_bytes() const {
  return weight_bytes + rope_bytes + tokenizer_bytes + program_bytes + activation_bytes +
         logits_bytes + scratch_bytes + sampler_bytes + bookkeeping_bytes + swap_bytes +
         rounding_bytes;
}

int64_t MemoryPlan::num_sequences(int num_tokens) const {
  return kv.num_blocks / ((int64_t{num_tokens} + block_size - 1) / block_size);
}

namespace {

// What the scheduler and the runner keep for each block, token and row. A block's tokens are also
// those of the sequences that hold it, with their hash and their place in a table.
int64_t bookkeeping_bytes(const EngineConfig& config, const MemoryPlan& plan) {
  const int64_t blocks = plan.kv.num_blocks + plan.num_host_blocks;
  const int64_t tokens = config.max_num_batched_tokens;
  const int64_t length =
      (int64_t{plan.kv.max_model_len} + config.block_size - 1) / config.block_size;  // of a table
  const int64_t pool = BlockPool::bytes_of(blocks, config.block_size);
  const int64_t sequences = blocks * (int64_t{config.block_size} * 4 + 8 + 4);
  const int64_t batches = 2 * (tokens * 4 + plan.max_logit_rows * 4 + blocks * 4);
  const int64_t inputs = tokens * (4 + 4 + 8) + int64_t{config.max_num_seqs} * length * 4;
  return pool + sequences + batches + inputs;
}

std::string in_bytes(int64_t bytes) {
  return format_bytes(bytes) + " (" + std::to_string(bytes) + " bytes)";
}

// Which flag makes up for `missing` bytes. Sizes are named in whole pages: a few bytes less may be
// no less.
std::string remedy(const EngineConfig& config, const MemoryPlan& plan, int64_t missing) {
  constexpr int64_t kPoolUnit = 2 << 20;
  MemoryPlan without_swap = plan;
  without_swap.num_host_blocks = 0;
  // What goes with each byte of swap space.
  const int64_t swap_side =
      plan.swap_bytes + bookkeeping_bytes(config, plan) - bookkeeping_bytes(config, without_swap);
  if (plan.swap_bytes > 0 && swap_side >= missing) {
    const double left = static_cast<double>(swap_side - missing) / static_cast<double>(swap_side);
    const auto bytes = static_cast<int64_t>(left * static_cast<double>(plan.swap_bytes));
    return "lower --swap-space to at most " +
           std::to_string(std::max<int64_t>(0, bytes / kPoolUnit - 1) * kPoolUnit);
  }
  if (plan.kv.pool_bytes - plan.kv.block_bytes - kPoolUnit >= missing) {
    const bool utilised = config.gpu_memory_utilization > 0;
    return std::string(utilised ? "lower --gpu-memory-utilization, or say instead " : "lower ") +
           "--kv-cache-memory-bytes " + (utilised ? "" : "to at most ") +
           std::to_string((plan.kv.pool_bytes - missing) / kPoolUnit * kPoolUnit);
  }
  if (plan.activation_bytes + plan.logits_bytes >= missing) {
    return "lower --max-num-batched-tokens or --max-num-seqs, whose activations and logits take " +
           in_bytes(plan.activation_bytes + plan.logits_bytes);
  }
  return "the weights alone take " + in_bytes(plan.weight_bytes) +
         ": take a smaller model, or one with fewer bits a weight";
}

Status check_total(const EngineConfig& config, const MemoryPlan& plan) {
  const int64_t missing = plan.peak_bytes() - plan.available_bytes;
  if (missing <= 0 || mutant("memory_overcommitted")) return Status();
  std::string parts = "KV pool " + format_bytes(plan.kv.pool_bytes);
  if (plan.swap_bytes > 0) parts += ", swap space " + format_bytes(plan.swap_bytes);
  if (plan.weight_bytes > 0) parts += ", weights " + format_bytes(plan.weight_bytes);
  parts += ", a step " + format_bytes(plan.activation_bytes + plan.logits_bytes +
                                      plan.scratch_bytes + plan.sampler_bytes);
  return resource_exhausted("the engine would take " + in_bytes(plan.peak_bytes()) + " (" + parts +
                            "), but " + in_bytes(plan.available_bytes) +
                            " are available: " + remedy(config, plan, missing));
}

// What kernels write of all threads' scratch, in pages of 2 MiB: the beginning of each, and of the
// first the plan of an attention step and the partial results of split sequences.
int64_t scratch_bytes_written(int num_threads) { return (int64_t{num_threads} + 2) * (2 << 20); }

void plan_step(const EngineConfig& config, const Model& model, MemoryPlan* plan) {
  const int vocab_size = model.config().vocab_size;
  plan->num_threads = config.num_threads > 0 ? config.num_threads : default_num_threads();
  plan->max_logit_rows =
      config.max_num_seqs + std::min(kPromptLogitRows, config.max_num_batched_tokens);
  plan->activation_bytes = model.workspace_bytes(config.max_num_batched_tokens,
                                                 plan->max_logit_rows,
                                                 activation_type(config),
                                                 fusion_set(config));
  plan->logits_bytes = int64_t{plan->max_logit_rows} * vocab_size * 4;
  plan->scratch_bytes = scratch_bytes_written(plan->num_threads);
  plan->scratch_reserved = plan->num_threads * kScratchBytesPerThread;
  plan->sampler_bytes = plan->num_threads * Sampler::scratch_bytes(vocab_size);
}

// The pool, and what grows with it.
void plan_pool(const EngineConfig& config,
               const MemoryContext& context,
               const KvPoolInputs& pool,
               int64_t rope_bytes_per_position,
               MemoryPlan* plan) {
  plan->refusal = Status();
  plan->kv = size_kv_pool(config, pool, &plan->refusal);
  plan->rope_bytes =
      std::min<int64_t>(pool.model_max_len, plan->kv.max_model_len) * rope_bytes_per_position;
  plan->bookkeeping_bytes = bookkeeping_bytes(config, *plan);
  plan->rounding_bytes = 0;
  for (const int64_t bytes : {context.is_loaded ? 0 : plan->weight_bytes,
                              plan->activation_bytes,
                              plan->logits_bytes,
                              plan->kv.pool_bytes,
                              plan->swap_bytes}) {
    plan->rounding_bytes += HugeBuffer::page_bytes(bytes) - bytes;
  }
}

// Returns what the rest leaves the pool. It may take a share of that; or, with
// gpu_memory_utilization, total x utilisation - the rest, of which the bookkeeping grows with it.
int64_t size_pool(const EngineConfig& config,
                  const MemoryContext& context,
                  KvPoolInputs pool,
                  int64_t rope_bytes_per_position,
                  MemoryPlan* plan) {
  const bool utilised = config.gpu_memory_utilization > 0;
  int64_t limit = context.available_bytes;
  if (utilised) {
    const auto total = static_cast<double>(context.total_bytes);
    const auto kept_free = static_cast<int64_t>((1 - config.gpu_memory_utilization) * total);
    // A model that is loaded has left less.
    limit = (context.is_loaded ? context.available_bytes : context.total_bytes) - kept_free;
  }
  const int64_t left = std::max<int64_t>(0, limit - plan->fixed_bytes());
  pool.free_memory_bytes = left;
  plan_pool(config, context, pool, rope_bytes_per_position, plan);
  while (utilised && plan->peak_bytes() > limit && plan->kv.num_blocks > 0) {
    pool.free_memory_bytes = plan->kv.pool_bytes - (plan->peak_bytes() - limit);
    pool.free_memory_bytes = std::max<int64_t>(0, pool.free_memory_bytes);
    plan_pool(config, context, pool, rope_bytes_per_position, plan);
  }
  return left;
}

}  // namespace

MemoryPlan plan_memory(const EngineConfig& config,
                       const Model& model,
                       const MemoryContext& context) {
  const ModelConfig& m = model.config();
  MemoryPlan plan;
  plan.block_size = config.block_size;
  plan.available_bytes = context.available_bytes;
  plan.tokenizer_bytes = context.tokenizer_bytes;
  plan.program_bytes = context.program_bytes;
  plan.weights.assign(context.weights.begin(), context.weights.end());
  for (const PackedGroup& group : plan.weights) plan.weight_bytes += group.bytes;
  const int64_t rope_bytes_per_position = context.is_loaded ? 0 : int64_t{m.rope.rotary_dim} * 4;
  plan.rope_bytes = m.max_position * rope_bytes_per_position;
  plan_step(config, model, &plan);

  const KvLayout layout{kv_cache_type(config), config.block_size, m.num_kv_heads, m.head_dim};
  const int64_t block_bytes = kv_block_bytes(layout) * m.num_layers;
  // Halved, so that a sum with what no memory holds is a number still.
  plan.num_host_blocks = std::min(config.swap_space_bytes, INT64_MAX / 2) / block_bytes;
  plan.swap_bytes = plan.num_host_blocks * block_bytes;
  const KvPoolInputs pool{.num_layers = m.num_layers,
                          .block_bytes_per_layer = kv_block_bytes(layout),
                          .free_memory_bytes = 0,
                          .model_max_len = m.max_position};
  const int64_t left = size_pool(config, context, pool, rope_bytes_per_position, &plan);
  if (plan.refusal.ok() && config.swap_space_bytes > 0 && plan.num_host_blocks < 1) {
    plan.refusal = resource_exhausted("--swap-space " + std::to_string(config.swap_space_bytes) +
                                      " holds no KV block of " + std::to_string(block_bytes) +
                                      " bytes: raise it");
  }
  // Where the rest takes everything, a pool that is too small is not what is wrong.
  const Status total = check_total(config, plan);
  if (!total.ok() && (plan.refusal.ok() || left == 0)) plan.refusal = total;
  return plan;
}

}  // namespace quire
