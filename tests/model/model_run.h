// Runs a model on one token sequence with its own paged cache: what an engine does, at its
// simplest.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/workspace.h"

namespace quire::testing {

struct RunOptions {
  const OpTable* ops = nullptr;
  ActivationType activations = ActivationType::kF32;
  DType kv_dtype = DType::kF32;
  int block_size = 16;
  int num_threads = 1;
  FusionSet fusions = FusionSet::all();
  int64_t score_bytes = 16 << 20;
};

inline void run_on_pool(void* pool, void (*body)(void*, int32_t, int32_t), void* arg) {
  static_cast<ThreadPool*>(pool)->run(body, arg);
}

class ModelRun {
 public:
  ModelRun(const Model& model, const RunOptions& options, int max_tokens, int max_step)
      : model_(model),
        options_(options),
        pool_(options.num_threads),
        parallel_{&pool_, options.num_threads, run_on_pool} {
    const ModelConfig& c = model.config();
    const KvLayout layout{options.kv_dtype, options.block_size, c.num_kv_heads, c.head_dim};
    const int num_blocks = (max_tokens + options.block_size - 1) / options.block_size;
    kv_ = std::make_unique<KvCache>(KvCache::allocate(layout, c.num_layers, num_blocks).value());
    // Reversed, so that a block's number is not its place in the sequence.
    block_table_.resize(static_cast<size_t>(num_blocks));
    std::iota(block_table_.rbegin(), block_table_.rend(), 0);
    workspace_ = std::make_unique<Workspace>(
        Workspace::allocate(
            model.workspace_bytes(max_step, max_step, options.activations, options.fusions))
            .value());
    scratch_ =
        HugeBuffer::allocate(kScratchBytesPerThread * options.num_threads, "scratch").value();
  }

  // Appends tokens and returns the logits [tokens.size(), V] of their rows.
  std::vector<float> step(std::span<const int32_t> tokens) {
    std::vector<int32_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    return step(tokens, rows);
  }

  // The logits of `logit_rows` of these tokens only.
  std::vector<float> step(std::span<const int32_t> tokens, std::span<const int32_t> logit_rows) {
    const auto count = static_cast<int32_t>(tokens.size());
    const int64_t vocab = model_.config().vocab_size;
    std::vector<int32_t> positions(tokens.size());
    std::vector<int64_t> slots(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      positions[i] = length_ + static_cast<int32_t>(i);
      const int block = block_table_[static_cast<size_t>(positions[i] / options_.block_size)];
      slots[i] = int64_t{block} * options_.block_size + positions[i] % options_.block_size;
    }
    length_ += count;
    const int32_t query_start[] = {0, count}, kv_len[] = {length_};
    std::vector<float> logits(logit_rows.size() * static_cast<size_t>(vocab));
    ForwardContext context{};
    context.ops = options_.ops;
    context.exec = {parallel_, scratch_.data()};
    context.activations = options_.activations;
    context.fusions = options_.fusions;
    context.score_bytes = options_.score_bytes;
    context.batch = {tokens,
                     positions,
                     slots,
                     query_start,
                     kv_len,
                     block_table_,
                     static_cast<int>(block_table_.size()),
                     logit_rows};
    context.kv = kv_.get();
    context.workspace = workspace_.get();
    context.logits = {logits.data(), static_cast<int64_t>(logit_rows.size()), vocab, vocab};
    model_.forward(context);
    return logits;
  }

  // Runs the steps that follow on these threads, as many as RunOptions says.
  void use(const Parallel& parallel) { parallel_ = parallel; }

  const Workspace& workspace() const { return *workspace_; }
  int64_t overflows() const { return *kv_->overflows(); }

 private:
  const Model& model_;
  RunOptions options_;
  ThreadPool pool_;
  Parallel parallel_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Workspace> workspace_;
  HugeBuffer scratch_;
  std::vector<int32_t> block_table_;
  int32_t length_ = 0;
};

// Logits [tokens.size(), V], computed in steps of `chunk` tokens.
inline std::vector<float> logits_in_chunks(const Model& model,
                                           const RunOptions& options,
                                           std::span<const int32_t> tokens,
                                           size_t chunk) {
  ModelRun run(model, options, static_cast<int>(tokens.size()), static_cast<int>(chunk));
  std::vector<float> logits;
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    std::vector<float> part =
        run.step(tokens.subspan(first, std::min(chunk, tokens.size() - first)));
    logits.insert(logits.end(), part.begin(), part.end());
  }
  return logits;
}

// Every op table that runs on this machine, the reference included.
inline std::vector<const OpTable*> runnable_ops() {
  std::vector<const OpTable*> tables = {&ref_ops()};
  for (const IsaLevel& level : cpu_levels()) {
    if (level.ops != nullptr && level.runs_here) tables.push_back(level.ops);
  }
  return tables;
}

}  // namespace quire::testing
