// The logits of a sequence are the same bits whatever else is in the batch, however its prompt is
// chunked, whether it was preempted or its prefix came from cached blocks, for every block size and
// number of threads; on every ISA level by itself.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>

#include "base/hash.h"
#include "exactness/exact_run.h"
#include "kernels/backend.h"
#include "model/loader.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::ExactRun;
using testing::ExactSettings;
using testing::first_difference;
using testing::run_exactly;

std::shared_ptr<const Model> load(const fs::path& path) {
  Result<LoadedModel> loaded = load_model(path, LoadOptions{.num_threads = 2});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  return std::move(loaded.value().model);
}

// Lengths from 1 to `longest`; half of them begin alike, so that a prefix cache has work.
std::vector<std::vector<int32_t>> make_prompts(int count, int longest, int vocab_size) {
  std::vector<std::vector<int32_t>> prompts(count);
  for (int i = 0; i < count; ++i) {
    const int length = i == 0 ? 1 : 1 + static_cast<int>(mix64(i) % longest);
    for (int j = 0; j < length; ++j) {
      const uint64_t family = i % 2 == 0 ? 0 : i;
      prompts[i].push_back(static_cast<int32_t>(mix64(family * 1000 + j + 7) % vocab_size));
    }
  }
  return prompts;
}

std::vector<std::string> runnable_levels() {
  std::vector<std::string> names;
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) names.push_back(level.name);
  }
  return names;
}

struct Case {
  const char* model;  // a folder of golden/tiny, or a file of golden/tiny_gguf without its suffix
  std::string isa;
  std::string activations = "int16";
};

void PrintTo(const Case& item, std::ostream* out) {
  *out << item.model << ", " << item.isa << ", " << item.activations;
}

const fs::path kGolden = fs::path(QUIRE_TESTDATA) / "golden";

fs::path gguf_path(const Case& item) {
  return kGolden / "tiny_gguf" / (std::string(item.model) + ".gguf");
}
bool is_gguf(const Case& item) { return fs::exists(gguf_path(item)); }
fs::path path_of(const Case& item) {
  return is_gguf(item) ? gguf_path(item) : kGolden / "tiny" / item.model;
}

class Exactness : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    model_ = load(path_of(GetParam()));
    // Shorter where all types of activations run: levels differ in their matrix kernels there.
    prompts_ = make_prompts(32, is_gguf(GetParam()) ? 40 : 90, model_->config().vocab_size);
    base_.isa = GetParam().isa;
    base_.activations = GetParam().activations;
    ExactSettings alone = base_;
    alone.one_at_a_time = true;
    alone_ = run_exactly(model_, prompts_, alone);
    int64_t rows = 0;
    for (const auto& prompt : prompts_) rows += static_cast<int64_t>(prompt.size()) + 7;
    ASSERT_EQ(static_cast<int64_t>(alone_.bits.size()), rows);
  }
  ExactRun expect_exact(const ExactSettings& settings, const std::string& what) {
    ExactRun run = run_exactly(model_, prompts_, settings);
    EXPECT_EQ(first_difference(run, alone_), "") << what;
    if (settings.all_rows) {
      EXPECT_EQ(run.bits.size(), alone_.bits.size()) << what;
    }
    return run;
  }
  std::shared_ptr<const Model> model_;
  std::vector<std::vector<int32_t>> prompts_;
  ExactSettings base_;
  ExactRun alone_;
};

TEST_P(Exactness, BatchChunksAndThreads) {
  expect_exact(base_, "batched");
  for (int chunk : {1, 7, 16, 64}) {
    ExactSettings s = base_;
    s.chunk = chunk;
    expect_exact(s, "chunks of " + std::to_string(chunk));
    s.num_threads = 2;
    s.max_num_seqs = 5;
    expect_exact(s, "2 threads, 5 sequences, chunks of " + std::to_string(chunk));
  }
}

TEST_P(Exactness, BlockSizes) {
  for (int block_size : {1, 2, 4, 8, 32, 64, 128, 256}) {
    ExactSettings s = base_;
    s.block_size = block_size;
    s.num_kv_tokens = 16384;
    expect_exact(s, "blocks of " + std::to_string(block_size));
  }
}

TEST_P(Exactness, Preemption) {
  for (int chunk : {0, 7}) {
    for (bool all_rows : {true, false}) {
      ExactSettings s = base_;
      s.num_kv_tokens = 160;
      s.block_size = 4;
      s.chunk = chunk;
      s.all_rows = all_rows;
      const ExactRun run = expect_exact(s, "preempted, chunks of " + std::to_string(chunk));
      EXPECT_GT(run.stats.num_preemptions, 0);
    }
  }
}

TEST_P(Exactness, CachedPrefixes) {
  for (int block_size : {1, 16}) {
    for (int num_kv_tokens : {8192, 256}) {  // the small pool evicts and preempts
      ExactSettings s = base_;
      s.block_size = block_size;
      s.num_kv_tokens = num_kv_tokens;
      s.prefix_caching = true;
      s.all_rows = false;
      s.rounds = 2;
      const ExactRun run =
          expect_exact(s, "cached prefixes, blocks of " + std::to_string(block_size));
      EXPECT_GT(run.stats.prefix_cache_hits, 0);
    }
  }
}

// Every level by itself: plain weights, and quantised ones with each type of activations.
std::vector<Case> tiny_cases() {
  std::vector<Case> cases;
  for (const std::string& isa : runnable_levels()) {
    for (const char* model : {"llama_gqa", "mistral_window", "qwen3", "opt_pre"}) {
      cases.push_back({model, isa});
    }
    for (const char* model : {"llama_q4_1", "llama_k_quants"}) {
      for (const char* activations : {"int16", "int8", "f32"}) {
        cases.push_back({model, isa, activations});
      }
    }
  }
  cases.push_back({"llama_gqa", "ref"});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Exactness, ::testing::ValuesIn(tiny_cases()), [](const auto& info) {
  return info.param.model + ("_" + info.param.isa) + "_" + info.param.activations;
});

// The default model with its quantised weights, int16 activations and f16 KV, where it is in the
// cache, on the best level.
class ExactnessOfTheDefaultModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Result<fs::path> path = resolve_model("smollm2");
    if (path.ok()) model_ = load(*path);
  }
  static void TearDownTestSuite() { model_.reset(); }
  void SetUp() override {
    if (model_ == nullptr) GTEST_SKIP() << "smollm2 is not here (scripts/get-model smollm2)";
    base_.max_tokens = 3;
  }
  void run_alone(std::vector<std::vector<int32_t>> prompts) {
    prompts_ = std::move(prompts);
    ExactSettings alone = base_;
    alone.one_at_a_time = true;
    alone_ = run_exactly(model_, prompts_, alone);
    size_t rows = prompts_.size() * base_.num_answers * base_.max_tokens;
    if (base_.all_rows) {
      for (const auto& prompt : prompts_) rows += prompt.size() - 1;
    }
    ASSERT_EQ(alone_.bits.size(), rows);
    std::printf("%zu prompts, %zu rows of logits\n", prompts_.size(), rows);
  }
  ExactRun expect_exact(const ExactSettings& settings, const std::string& what) {
    const auto start = std::chrono::steady_clock::now();
    const ExactRun run = run_exactly(model_, prompts_, settings);
    EXPECT_EQ(first_difference(run, alone_), "") << what;
    if (settings.all_rows) {
      EXPECT_EQ(run.bits.size(), alone_.bits.size()) << what;
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%5.1f s  %s\n", seconds.count(), what.c_str());
    return run;
  }
  static std::shared_ptr<const Model> model_;
  std::vector<std::vector<int32_t>> prompts_;
  ExactSettings base_;
  ExactRun alone_;
};

std::shared_ptr<const Model> ExactnessOfTheDefaultModel::model_;

TEST_F(ExactnessOfTheDefaultModel, ShortPrompts) {
  run_alone(make_prompts(32, 20, model_->config().vocab_size));
  ExactSettings s = base_;
  expect_exact(s, "batched, 1 thread");
  s.num_threads = 2;
  expect_exact(s, "batched, 2 threads");
  for (int chunk : {1, 7, 16, 64}) {
    s.chunk = chunk;
    expect_exact(s, "chunks of " + std::to_string(chunk));
  }
  s.chunk = 0;
  for (int block_size : {1, 2, 4, 8, 32, 64, 128, 256}) {  // 16 is the default
    s.block_size = block_size;
    expect_exact(s, "blocks of " + std::to_string(block_size));
  }
  s.block_size = 4;
  s.num_kv_tokens = 64;
  const ExactRun preempted = expect_exact(s, "preempted");
  EXPECT_GT(preempted.stats.num_preemptions, 0);
}

// Beyond one partial of 512 tokens.
TEST_F(ExactnessOfTheDefaultModel, LongPrompts) {
  auto prompts = make_prompts(4, 60, model_->config().vocab_size);
  prompts[2].resize(560, 11);
  prompts[3].resize(260, 12);
  run_alone(std::move(prompts));
  ExactSettings s = base_;
  s.num_threads = 2;
  s.chunk = 64;
  expect_exact(s, "chunks of 64");
  s.chunk = 16;
  s.block_size = 1;
  expect_exact(s, "chunks of 16, blocks of 1");
  s.chunk = 64;        // so that both long prompts begin before either has all its blocks
  s.all_rows = false;  // rows of cached positions are not computed
  s.block_size = 4;
  s.num_kv_tokens = 820;  // both prompts, and nothing that they generate
  s.prefix_caching = true;
  s.rounds = 2;
  const ExactRun run = expect_exact(s, "cached prefixes, preempted");
  EXPECT_GT(run.stats.prefix_cache_hits, 0);
  EXPECT_GT(run.stats.num_preemptions, 0);
}

// Groups that share their prompt's blocks, copy on write, and are preempted at steps that the
// arrivals and the size of the pool make random.
TEST_F(ExactnessOfTheDefaultModel, SharedAnswersPreemptedAtRandomSteps) {
  base_.all_rows = false;
  base_.max_tokens = 8;
  base_.num_threads = 2;
  base_.num_answers = 3;
  base_.separate = true;
  run_alone(make_prompts(8, 20, model_->config().vocab_size));
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    ExactSettings s = base_;
    s.separate = false;
    s.arrival_seed = seed;
    s.block_size = 4;
    s.num_kv_tokens = 84 + static_cast<int>(mix64(seed) % 60);
    s.prefix_caching = seed % 2 == 0;
    const bool swaps = seed % 4 >= 2;
    s.preemption_mode = swaps ? PreemptionMode::kSwap : PreemptionMode::kRecompute;
    const ExactRun run = expect_exact(s, "shared answers, seed " + std::to_string(seed));
    EXPECT_GT(run.stats.num_preemptions, 0) << seed;
    EXPECT_EQ(run.stats.num_swapped_out > 0, swaps) << seed;
  }
}

}  // namespace
}  // namespace quire
