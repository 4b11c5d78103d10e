// Every architecture against Hugging Face transformers: tiny seeded checkpoints and their logits
// (scripts/golden), on every backend and ISA level that runs here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "golden/golden_data.h"
#include "model/architecture.h"
#include "model/loader.h"
#include "model/model_run.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::GoldenPrompt;
using testing::RunOptions;

constexpr double kTolerance = 1e-4;  // of the logit range

std::vector<std::string> checkpoint_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(QUIRE_TESTDATA) / "golden" / "tiny")) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path folder_of(const std::string& name) {
  return fs::path(QUIRE_TESTDATA) / "golden" / "tiny" / name;
}

LoadedModel load(const fs::path& path) {
  Result<LoadedModel> loaded = load_model(path, LoadOptions{.num_threads = 2});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  return std::move(loaded).value();
}

class ArchTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ArchTest, LogitsEqualTheReferenceImplementations) {
  const fs::path folder = folder_of(GetParam());
  const LoadedModel loaded = load(folder);
  const size_t vocab = static_cast<size_t>(loaded.model->config().vocab_size);
  const std::vector<GoldenPrompt> prompts = testing::read_golden(folder / "golden.safetensors");
  ASSERT_FALSE(prompts.empty());
  for (const OpTable* ops : testing::runnable_ops()) {
    for (const GoldenPrompt& prompt : prompts) {
      const std::vector<float> got = testing::logits_in_chunks(
          *loaded.model, RunOptions{.ops = ops}, prompt.tokens, prompt.tokens.size());
      const auto [low, high] = std::minmax_element(prompt.logits.begin(), prompt.logits.end());
      double worst = 0;
      for (size_t i = 0; i < prompt.positions.size(); ++i) {
        const size_t row = static_cast<size_t>(prompt.positions[i]);
        for (size_t v = 0; v < vocab; ++v) {
          const double difference = got[row * vocab + v] - prompt.logits[i * vocab + v];
          ASSERT_TRUE(std::isfinite(difference)) << ops->name << " row " << row;
          worst = std::max(worst, std::abs(difference));
        }
      }
      EXPECT_LE(worst, kTolerance * (*high - *low))
          << ops->name << ", prompt of " << prompt.tokens.size() << " tokens";
    }
  }
}

TEST_P(ArchTest, ChunksAndDecodingGiveTheBitsOfWholePrefill) {
  const fs::path folder = folder_of(GetParam());
  const LoadedModel loaded = load(folder);
  const std::vector<GoldenPrompt> prompts = testing::read_golden(folder / "golden.safetensors");
  const std::vector<int32_t>& tokens = prompts.back().tokens;
  for (const OpTable* ops : testing::runnable_ops()) {
    const RunOptions options{.ops = ops};
    const std::vector<float> whole =
        testing::logits_in_chunks(*loaded.model, options, tokens, tokens.size());
    for (size_t chunk : {1, 7, 16, 64}) {
      EXPECT_EQ(testing::logits_in_chunks(*loaded.model, options, tokens, chunk), whole)
          << ops->name << ", chunks of " << chunk;
    }
    RunOptions other_blocks = options;
    other_blocks.block_size = 4;
    EXPECT_EQ(testing::logits_in_chunks(*loaded.model, other_blocks, tokens, 16), whole)
        << ops->name << ", blocks of 4";
  }
}

TEST_P(ArchTest, LogitsOfSomeRowsEqualThoseOfAll) {
  const LoadedModel loaded = load(folder_of(GetParam()));
  const size_t vocab = static_cast<size_t>(loaded.model->config().vocab_size);
  const std::vector<int32_t> tokens = {5, 17, 80, 3, 44};
  for (const OpTable* ops : testing::runnable_ops()) {
    const RunOptions options{.ops = ops};
    const std::vector<float> all = testing::logits_in_chunks(*loaded.model, options, tokens, 5);
    testing::ModelRun run(*loaded.model, options, 5, 5);
    const int32_t rows[] = {1, 4};
    const std::vector<float> some = run.step(tokens, rows);
    ASSERT_EQ(some.size(), 2 * vocab);
    EXPECT_TRUE(std::equal(some.begin(), some.begin() + vocab, all.begin() + vocab));
    EXPECT_TRUE(std::equal(some.begin() + vocab, some.end(), all.begin() + 4 * vocab));
    testing::ModelRun silent(*loaded.model, options, 5, 5);
    EXPECT_TRUE(silent.step(tokens, {}).empty());
  }
}

TEST_P(ArchTest, WorkspaceIsSizedExactly) {
  const LoadedModel loaded = load(folder_of(GetParam()));
  const std::vector<int32_t> tokens = {5, 17, 80, 3, 44};
  testing::ModelRun run(*loaded.model, RunOptions{.ops = &ref_ops()}, 5, 5);
  run.step(tokens);
  EXPECT_EQ(run.workspace().peak_bytes(), loaded.model->workspace_bytes(5, 5));
  EXPECT_GT(loaded.model->workspace_bytes(6, 5), loaded.model->workspace_bytes(5, 5));
}

INSTANTIATE_TEST_SUITE_P(Tiny,
                         ArchTest,
                         ::testing::ValuesIn(checkpoint_names()),
                         [](const auto& info) { return info.param; });

TEST(ArchCoverageTest, EveryArchitectureHasGoldenLogits) {
  std::set<std::string> covered;
  for (const std::string& name : checkpoint_names()) {
    if (fs::exists(folder_of(name) / "golden.safetensors")) {
      covered.insert(inspect_model(folder_of(name)).value().config.architecture);
    }
  }
  for (const Architecture* architecture : architectures()) {
    EXPECT_TRUE(covered.contains(architecture->name))
        << architecture->name << " has no checkpoint in tests/data/golden/tiny (scripts/golden)";
  }
}

}  // namespace
}  // namespace quire
