// paged-overhead: the attention kernel over blocks that lie anywhere against the same kernel over
// one region a sequence. Both hold the same keys and values and must give the same bits.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "apps/paper/figures.h"
#include "base/memory.h"
#include "kernels/backend.h"
#include "kernels/parallel.h"
#include "model/kv_cache.h"
#include "model/loader.h"

namespace quire {
namespace {

constexpr int kBlockSizes[] = {16, 32, 64, 128, 256};

// A step of equal sequences: each computes `queries` tokens behind a context of `depth`.
struct StepShape {
  const char* name;
  int num_seqs, depth, queries;
};

struct Heads {
  int query, kv, dim;
};

// The threads, and the ops that they run.
class Kernels {
 public:
  static Result<std::unique_ptr<Kernels>> create(int num_threads) {
    QUIRE_ASSIGN_OR_RETURN(const OpTable* const ops, select_ops(""));
    QUIRE_ASSIGN_OR_RETURN(
        HugeBuffer scratch,
        HugeBuffer::allocate(num_threads * kScratchBytesPerThread, "the threads' scratch memory"));
    return std::unique_ptr<Kernels>(new Kernels(*ops, num_threads, std::move(scratch)));
  }
  const OpTable& ops() const { return ops_; }
  ExecContext exec() { return {make_parallel(pool_), scratch_.data()}; }

 private:
  Kernels(const OpTable& ops, int num_threads, HugeBuffer scratch)
      : ops_(ops), pool_(num_threads, /*pin=*/true), scratch_(std::move(scratch)) {}

  const OpTable& ops_;
  ThreadPool pool_;
  HugeBuffer scratch_;
};

std::vector<float> random_values(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

// A KV cache of some layers that holds the step's sequences, each with the same keys and values
// whatever the block size and wherever the blocks are, and the step's queries.
class AttentionStep {
 public:
  // Layers enough for 64 MiB, up to the model's, so that decoding finds no keys in the caches.
  static Result<std::unique_ptr<AttentionStep>> create(Kernels& kernels,
                                                       const Heads& heads,
                                                       int model_layers,
                                                       const StepShape& shape,
                                                       int block_size,
                                                       bool scattered) {
    std::unique_ptr<AttentionStep> step(new AttentionStep(kernels, heads, shape));
    const KvLayout layout{DType::kF16, block_size, heads.kv, heads.dim};
    const int blocks = (step->kv_len() + block_size - 1) / block_size;
    const int64_t layer_bytes = kv_block_bytes(layout) * blocks * shape.num_seqs;
    const auto wanted = static_cast<int>(((int64_t{64} << 20) + layer_bytes - 1) / layer_bytes);
    step->num_layers_ = shape.queries == 1 ? std::clamp(wanted, 1, model_layers) : 1;
    QUIRE_ASSIGN_OR_RETURN(
        step->kv_, KvCache::allocate(layout, step->num_layers_, int64_t{blocks} * shape.num_seqs));
    step->place_blocks(blocks, scattered);
    step->fill();
    return step;
  }

  // Of all layers.
  Result<double> seconds() {
    const auto start = std::chrono::steady_clock::now();
    for (int layer = 0; layer < num_layers_; ++layer) attend(layer);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  int num_layers() const { return num_layers_; }
  const std::vector<float>& output() const { return out_; }  // of the last layer

 private:
  AttentionStep(Kernels& kernels, const Heads& heads, const StepShape& shape)
      : kernels_(kernels),
        heads_(heads),
        shape_(shape),
        q_(random_values(int64_t{shape.num_seqs} * shape.queries * heads.query * heads.dim, 1)),
        out_(q_.size()) {
    for (int s = 0; s <= shape.num_seqs; ++s) query_start_.push_back(s * shape.queries);
    kv_lens_.assign(shape.num_seqs, kv_len());
  }
  int kv_len() const { return shape_.depth + shape_.queries; }

  void place_blocks(int blocks, bool scattered) {
    num_blocks_ = blocks;
    tables_.resize(static_cast<size_t>(shape_.num_seqs) * blocks);
    for (size_t i = 0; i < tables_.size(); ++i) tables_[i] = static_cast<int32_t>(i);
    std::mt19937_64 random(2);
    if (scattered) std::shuffle(tables_.begin(), tables_.end(), random);
  }

  void fill() {
    const int64_t rows = kv_len(), columns = int64_t{heads_.kv} * heads_.dim;
    const int block_size = kv_.layout().block_size;
    std::vector<int64_t> slots(rows);
    for (int s = 0; s < shape_.num_seqs; ++s) {
      std::vector<float> k = random_values(rows * columns, 100 + s);
      std::vector<float> v = random_values(rows * columns, 200 + s);
      const int32_t* table = tables_.data() + static_cast<size_t>(s) * num_blocks_;
      for (int64_t t = 0; t < rows; ++t) {
        slots[t] = int64_t{table[t / block_size]} * block_size + t % block_size;
      }
      for (int layer = 0; layer < num_layers_; ++layer) {
        kernels_.ops().kv_write(kernels_.exec(),
                                {{k.data(), rows, columns, columns},
                                 {v.data(), rows, columns, columns},
                                 slots.data(),
                                 kv_.layout(),
                                 kv_.layer(layer),
                                 kv_.overflows()});
      }
    }
  }

  void attend(int layer) {
    const int64_t rows = query_start_.back(), columns = int64_t{heads_.query} * heads_.dim;
    kernels_.ops().attention(kernels_.exec(),
                             {{q_.data(), rows, columns, columns},
                              heads_.query,
                              kv_.layout(),
                              kv_.layer(layer),
                              shape_.num_seqs,
                              query_start_.data(),
                              kv_lens_.data(),
                              tables_.data(),
                              num_blocks_,
                              1 / std::sqrt(static_cast<float>(heads_.dim)),
                              0,
                              {out_.data(), rows, columns, columns}});
  }

  Kernels& kernels_;
  const Heads heads_;
  const StepShape shape_;
  int num_layers_ = 0, num_blocks_ = 0;  // of a sequence
  KvCache kv_;
  std::vector<float> q_, out_;
  std::vector<int32_t> tables_, query_start_, kv_lens_;
};

// The block size in which a contiguous region is read fastest: the best of three runs each.
Result<int> fastest_region(Kernels& kernels, const Heads& heads, int layers, const StepShape& s) {
  int best = 0;
  double best_seconds = 0;
  for (const int block_size : kBlockSizes) {
    QUIRE_ASSIGN_OR_RETURN(const auto step,
                           AttentionStep::create(kernels, heads, layers, s, block_size, false));
    for (int run = 0; run < 3; ++run) {
      QUIRE_ASSIGN_OR_RETURN(const double seconds, step->seconds());
      if (best != 0 && seconds >= best_seconds) continue;
      best = block_size;
      best_seconds = seconds;
    }
  }
  return best;
}

Status check_same_bits(const AttentionStep& region, const AttentionStep& paged) {
  const auto& a = region.output();
  const auto& b = paged.output();
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return {};
  return internal_error("attention over a region and over blocks gives different bits");
}

Result<Json> compare_step(
    Kernels& kernels, const Heads& heads, int layers, const StepShape& shape, int rounds) {
  QUIRE_ASSIGN_OR_RETURN(const int region_block, fastest_region(kernels, heads, layers, shape));
  QUIRE_ASSIGN_OR_RETURN(const auto region,
                         AttentionStep::create(kernels, heads, layers, shape, region_block, false));
  Json rows = Json::array();
  for (const int block_size : kBlockSizes) {
    QUIRE_ASSIGN_OR_RETURN(const auto paged,
                           AttentionStep::create(kernels, heads, layers, shape, block_size, true));
    QUIRE_ASSIGN_OR_RETURN(
        const PairedTimes times,
        compare_in_turns(
            rounds, [&] { return region->seconds(); }, [&] { return paged->seconds(); }));
    QUIRE_RETURN_IF_ERROR(check_same_bits(*region, *paged));
    std::printf("%-22s %6d %10.1f %8d %9.1f  %.3f (%.3f to %.3f)\n",
                shape.name,
                region_block,
                times.first / region->num_layers() * 1e6,
                block_size,
                times.second / region->num_layers() * 1e6,
                times.ratio,
                times.ratio_low,
                times.ratio_high);
    std::fflush(stdout);
    Json row = to_json(times);
    row["block_size"] = block_size;
    rows.push_back(std::move(row));
  }
  return Json{{"step", shape.name},
              {"layers", region->num_layers()},
              {"region_block_size", region_block},
              {"paged", rows}};
}

}  // namespace

Result<Json> paged_overhead_figure(const ComparisonSettings& settings) {
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(settings.model));
  QUIRE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(path));
  const ModelConfig& m = info.config;
  const Heads heads{m.num_heads, m.num_kv_heads, m.head_dim};
  QUIRE_ASSIGN_OR_RETURN(const auto kernels, Kernels::create(settings.num_threads));
  std::printf("attention of %s: %d query heads, %d KV heads, D %d, f16; %s, %d threads\n",
              settings.model.c_str(),
              heads.query,
              heads.kv,
              heads.dim,
              kernels->ops().name,
              settings.num_threads);
  std::printf("%-22s %6s %10s %8s %9s  paged / region (95 %%)\n",
              "",
              "region",
              "us/layer",
              "blocks",
              "us/layer");
  const int depth = std::min(4096, m.max_position) - 1;
  const int chunk = std::min(512, depth / 2);
  const StepShape shapes[] = {{"decode, 1 sequence", 1, depth, 1},
                              {"decode, 8 sequences", 8, depth / 4, 1},
                              {"prefill, from 0", 1, 0, chunk},
                              {"prefill, long context", 1, depth + 1 - chunk, chunk}};
  Json cases = Json::array();
  for (const StepShape& shape : shapes) {
    QUIRE_ASSIGN_OR_RETURN(Json result,
                           compare_step(*kernels, heads, m.num_layers, shape, settings.rounds));
    result["sequences"] = shape.num_seqs;
    result["context"] = shape.depth;
    result["tokens"] = shape.queries;
    cases.push_back(std::move(result));
  }
  return Json{
      {"machine",
       std::string(kernels->ops().name) + ", " + std::to_string(settings.num_threads) + " threads"},
      {"model", settings.model},
      {"cases", cases}};
}

}  // namespace quire
