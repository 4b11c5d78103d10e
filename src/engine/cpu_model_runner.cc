#include "engine/cpu_model_runner.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/parallel.h"

namespace quire {
namespace {

ActivationType activation_type(const std::string& name) {
  if (name == "int8") return ActivationType::kInt8;
  return name == "f32" ? ActivationType::kF32 : ActivationType::kInt16;
}

DType kv_dtype(const std::string& name) {
  if (name == "bfloat16") return DType::kBF16;
  return name == "float32" ? DType::kF32 : DType::kF16;
}

}  // namespace

Result<std::unique_ptr<CpuModelRunner>> CpuModelRunner::create(const EngineConfig& config,
                                                               std::unique_ptr<Model> model) {
  QUIRE_ASSIGN_OR_RETURN(const OpTable* ops, select_ops(config.isa));
  std::unique_ptr<CpuModelRunner> runner(new CpuModelRunner(config, std::move(model), *ops));
  QUIRE_RETURN_IF_ERROR(runner->allocate(config));
  return runner;
}

CpuModelRunner::CpuModelRunner(const EngineConfig& config,
                               std::unique_ptr<Model> model,
                               const OpTable& ops)
    : model_(std::move(model)),
      ops_(&ops),
      activations_(activation_type(config.activations)),
      pool_(config.num_threads > 0 ? config.num_threads : default_num_threads(), /*pin=*/true),
      sampler_(config.max_num_seqs, model_->config().vocab_size),
      sampler_scratch_(pool_.num_threads()) {}

Status CpuModelRunner::allocate(const EngineConfig& config) {
  const ModelConfig& model = model_->config();
  const int max_logit_rows = config.max_num_seqs + 1;
  QUIRE_ASSIGN_OR_RETURN(workspace_,
                         Workspace::allocate(model_->workspace_bytes(config.max_num_batched_tokens,
                                                                     max_logit_rows)));
  QUIRE_ASSIGN_OR_RETURN(
      scratch_,
      HugeBuffer::allocate(kScratchBytesPerThread * pool_.num_threads(), "kernel scratch"));
  QUIRE_ASSIGN_OR_RETURN(
      logits_,
      HugeBuffer::allocate(int64_t{4} * max_logit_rows * model.vocab_size, "logits"));

  const KvLayout layout{.dtype = kv_dtype(config.kv_cache_dtype),
                        .block_size = config.block_size,
                        .num_kv_heads = model.num_kv_heads,
                        .head_dim = model.head_dim};
  QUIRE_ASSIGN_OR_RETURN(kv_plan_,
                         plan_kv_pool(config,
                                      {.num_layers = model.num_layers,
                                       .block_bytes_per_layer = kv_block_bytes(layout),
                                       .free_memory_bytes = memory_facts().available_bytes,
                                       .model_max_len = model.max_position}));
  QUIRE_ASSIGN_OR_RETURN(kv_, KvCache::allocate(layout, model.num_layers, kv_plan_.num_blocks));
  info_ = {.num_blocks = static_cast<int>(kv_plan_.num_blocks),
           .block_size = config.block_size,
           .vocab_size = model.vocab_size,
           .max_model_len = model.max_position,
           .max_logit_rows = max_logit_rows,
           .max_in_flight = 1,
           .eos_token_ids = model.eos_token_ids};
  return {};
}

Status CpuModelRunner::launch(const ScheduledBatch& batch) {
  for (const NewSequence& sequence : batch.new_sequences) sampler_.add(sequence);
  fill_inputs(batch);
  const int64_t vocab = info_.vocab_size;
  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  auto* logits = reinterpret_cast<float*>(logits_.data());
  const int stride = batch.sequences.empty()
                         ? 0
                         : static_cast<int>(block_tables_.size() / batch.sequences.size());
  ForwardContext context{
      .ops = ops_,
      .exec = {.parallel = make_parallel(pool_), .scratch = scratch_.data()},
      .activations = activations_,
      .batch = {.tokens = batch.tokens,
                .positions = positions_,
                .slots = slots_,
                .query_start = query_start_,
                .kv_len = kv_len_,
                .block_tables = block_tables_,
                .block_table_stride = stride,
                .logit_rows = batch.logit_rows},
      .kv = &kv_,
      .workspace = &workspace_,
      .logits = {logits, rows, vocab, vocab},
  };
  model_->forward(context);
  result_.clear(static_cast<int>(batch.sequences.size()));
  result_.logits = {logits, static_cast<size_t>(rows * vocab)};
  result_.vocab_size = info_.vocab_size;
  sample(batch);
  return {};
}

Status CpuModelRunner::collect(StepResult* result) {
  std::swap(*result, result_);
  return {};
}

void CpuModelRunner::fill_inputs(const ScheduledBatch& batch) {
  positions_.clear();
  slots_.clear();
  kv_len_.clear();
  query_start_.assign(1, 0);
  int stride = 0;
  for (const ScheduledSequence& s : batch.sequences) stride = std::max(stride, s.num_blocks);
  block_tables_.assign(batch.sequences.size() * static_cast<size_t>(stride), 0);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const ScheduledSequence& s = batch.sequences[i];
    const std::span<const BlockId> blocks = batch.blocks_of(s);
    std::copy(blocks.begin(), blocks.end(), block_tables_.begin() + static_cast<int64_t>(i) * stride);
    for (int position = s.start; position < s.start + s.num_tokens; ++position) {
      positions_.push_back(position);
      slots_.push_back(kv_slot(blocks, position, info_.block_size));
    }
    kv_len_.push_back(s.start + s.num_tokens);
    query_start_.push_back(query_start_.back() + s.num_tokens);
  }
  for (const int32_t token : batch.tokens) {
    QUIRE_CHECK_MSG(token >= 0 && token < info_.vocab_size, "a token outside the vocabulary");
  }
}

// Sequences are dealt to threads one by one: with penalties or top-p one row costs far more than another.
void CpuModelRunner::sample(const ScheduledBatch& batch) {
  sampled_.assign(batch.sequences.size(), kInvalidToken);
  struct Work {
    CpuModelRunner* self;
    const ScheduledBatch* batch;
    std::atomic<int> next{0};
  } work{this, &batch};
  pool_.run(
      [](void* arg, int32_t thread, int32_t) {
        auto& w = *static_cast<Work*>(arg);
        const int count = static_cast<int>(w.batch->sequences.size());
        for (int i = w.next++; i < count; i = w.next++) {
          w.self->sample_sequence(*w.batch, i, w.self->sampler_scratch_[thread]);
        }
      },
      &work);
  result_.token_start.assign(1, 0);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    if (batch.sequences[i].samples) result_.tokens.push_back(sampled_[i]);
    result_.token_start.push_back(static_cast<int32_t>(result_.tokens.size()));
  }
}

void CpuModelRunner::sample_sequence(const ScheduledBatch& batch,
                                     int index,
                                     SamplerScratch& scratch) {
  const ScheduledSequence& s = batch.sequences[index];
  SequenceLogprobs& logprobs = result_.logprobs[index];
  const int end = s.start + s.num_tokens;
  // Row r belongs to position end - num_rows + r; the token after it is in the batch, or is next_token.
  const int prompt_rows = sampler_.wants_prompt_logprobs(s.slot) ? s.num_rows - (s.samples ? 1 : 0) : 0;
  for (int r = 0; r < prompt_rows; ++r) {
    const int following = s.first_token + s.num_tokens - s.num_rows + r + 1;
    const int32_t token =
        following < s.first_token + s.num_tokens ? batch.tokens[following] : s.next_token;
    if (token < 0) continue;
    logprobs.prompt.push_back(
        sampler_.prompt_logprobs(s.slot, token, result_.logits_row(s.first_row + r), &scratch));
  }
  if (!s.samples) return;
  sampled_[index] = sampler_.sample(s.slot,
                                    end,
                                    result_.logits_row(s.first_row + s.num_rows - 1),
                                    &scratch,
                                    &logprobs.sampled);
}

}  // namespace quire
