// The logits of a sequence are the same bits whatever else is in the batch, however its prompt is
// chunked, whether it was preempted or its prefix came from cached blocks, for every block size and
// number of threads; on every ISA level by itself.
#include <gtest/gtest.h>

#include <cstdlib>
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

class Exactness : public ::testing::TestWithParam<std::pair<std::string, std::string>> {
 protected:
  void SetUp() override {
    const auto& [checkpoint, isa] = GetParam();
    model_ = load(fs::path(QUIRE_TESTDATA) / "golden" / "tiny" / checkpoint);
    prompts_ = make_prompts(32, 90, model_->config().vocab_size);
    base_.isa = isa;
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

std::vector<std::pair<std::string, std::string>> tiny_cases() {
  std::vector<std::pair<std::string, std::string>> cases;
  for (const char* checkpoint : {"llama_gqa", "mistral_window", "qwen3", "opt_pre"}) {
    for (const std::string& isa : runnable_levels()) cases.emplace_back(checkpoint, isa);
  }
  cases.emplace_back("llama_gqa", "ref");
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Exactness, ::testing::ValuesIn(tiny_cases()), [](const auto& info) {
  return info.param.first + "_" + info.param.second;
});

// The default model with its quantised weights and int16 activations, where it is in the cache, on
// the best level.
TEST(ExactnessOfTheDefaultModel, AllVariants) {
  const Result<fs::path> path = resolve_model("smollm2");
  if (!path.ok()) GTEST_SKIP() << path.status().message();
  const std::shared_ptr<const Model> model = load(*path);
  auto prompts = make_prompts(6, 60, model->config().vocab_size);
  prompts.push_back(make_prompts(3, 2000, model->config().vocab_size)[2]);
  prompts.back().resize(560, 11);  // across a partial of 512 tokens
  ExactSettings base;
  base.max_tokens = 4;
  base.all_rows = false;
  ExactSettings alone = base;
  alone.one_at_a_time = true;
  const ExactRun reference = run_exactly(model, prompts, alone);
  const auto expect_exact = [&](const ExactSettings& s, const std::string& what) {
    const ExactRun run = run_exactly(model, prompts, s);
    EXPECT_EQ(first_difference(run, reference), "") << what;
    return run;
  };
  ExactSettings s = base;
  s.chunk = 64;
  s.num_threads = 2;
  expect_exact(s, "batched, chunks of 64, 2 threads");
  s.chunk = 7;
  s.block_size = 1;
  expect_exact(s, "chunks of 7, blocks of 1");
  s = base;
  s.num_threads = 2;
  s.block_size = 4;
  s.num_kv_tokens = 568;
  s.prefix_caching = true;
  s.rounds = 2;
  const ExactRun run = expect_exact(s, "cached and preempted");
  EXPECT_GT(run.stats.prefix_cache_hits, 0);
}

}  // namespace
}  // namespace quire
