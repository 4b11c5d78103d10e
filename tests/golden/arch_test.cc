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

const fs::path kGolden = fs::path(QUIRE_TESTDATA) / "golden";

struct Case {
  std::string name;
  fs::path model, golden;
};

// Hugging Face folders in golden/tiny, GGUF files in golden/tiny_gguf.
std::vector<Case> cases() {
  std::vector<Case> found;
  for (const auto& entry : fs::directory_iterator(kGolden / "tiny")) {
    const std::string name = entry.path().filename().string();
    found.push_back({name, entry.path(), entry.path() / "golden.safetensors"});
  }
  const std::string suffix = ".golden.safetensors";
  for (const auto& entry : fs::directory_iterator(kGolden / "tiny_gguf")) {
    const std::string file = entry.path().filename().string();
    if (!file.ends_with(suffix)) continue;
    const std::string name = file.substr(0, file.size() - suffix.size());
    fs::path model = entry.path().parent_path() / (name + ".gguf");
    if (!fs::exists(model)) {
      model = entry.path().parent_path() / (name + "-00001-of-00002.gguf");
    }
    found.push_back({"gguf_" + name, model, entry.path()});
  }
  std::sort(
      found.begin(), found.end(), [](const Case& a, const Case& b) { return a.name < b.name; });
  return found;
}

void PrintTo(const Case& item, std::ostream* out) { *out << item.name; }

LoadedModel load(const fs::path& path) {
  Result<LoadedModel> loaded = load_model(path, LoadOptions{.num_threads = 2});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  return std::move(loaded).value();
}

class ArchTest : public ::testing::TestWithParam<Case> {};

TEST_P(ArchTest, LogitsEqualTheReferenceImplementations) {
  const LoadedModel loaded = load(GetParam().model);
  const size_t vocab = static_cast<size_t>(loaded.model->config().vocab_size);
  const std::vector<GoldenPrompt> prompts = testing::read_golden(GetParam().golden);
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
  const LoadedModel loaded = load(GetParam().model);
  const std::vector<GoldenPrompt> prompts = testing::read_golden(GetParam().golden);
  const std::vector<int32_t>& tokens = prompts.back().tokens;
  for (const OpTable* ops : testing::runnable_ops()) {
    const RunOptions options{.ops = ops};
    const std::vector<float> whole =
        testing::logits_in_chunks(*loaded.model, options, tokens, tokens.size());
    for (size_t chunk : {1, 7, 16, 64}) {
      EXPECT_EQ(testing::logits_in_chunks(*loaded.model, options, tokens, chunk), whole)
          << ops->name << ", chunks of " << chunk;
    }
    RunOptions threads = options;
    threads.num_threads = 2;
    EXPECT_EQ(testing::logits_in_chunks(*loaded.model, threads, tokens, 16), whole)
        << ops->name << ", 2 threads";
    RunOptions other_blocks = options;
    other_blocks.block_size = 4;
    EXPECT_EQ(testing::logits_in_chunks(*loaded.model, other_blocks, tokens, 16), whole)
        << ops->name << ", blocks of 4";
  }
}

TEST_P(ArchTest, LogitsOfSomeRowsEqualThoseOfAll) {
  const LoadedModel loaded = load(GetParam().model);
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
  const LoadedModel loaded = load(GetParam().model);
  const Model& model = *loaded.model;
  const std::vector<int32_t> tokens = {5, 17, 80, 3, 44};
  for (ActivationType type :
       {ActivationType::kF32, ActivationType::kInt16, ActivationType::kInt8}) {
    for (const FusionSet fusions : {FusionSet::all(), FusionSet::none()}) {
      testing::ModelRun run(
          model, RunOptions{.ops = &ref_ops(), .activations = type, .fusions = fusions}, 5, 5);
      run.step(tokens);
      const int64_t bytes = model.workspace_bytes(5, 5, type, fusions);
      EXPECT_EQ(run.workspace().peak_bytes(), bytes);
      EXPECT_GT(model.workspace_bytes(6, 5, type, fusions), bytes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, ArchTest, ::testing::ValuesIn(cases()), [](const auto& info) {
  return info.param.name;
});

TEST(ArchCoverageTest, EveryArchitectureHasGoldenLogits) {
  std::set<std::string> covered;
  for (const Case& item : cases()) {
    if (fs::exists(item.golden)) {
      covered.insert(inspect_model(item.model).value().config.architecture);
    }
  }
  for (const Architecture* architecture : architectures()) {
    EXPECT_TRUE(covered.contains(architecture->name))
        << architecture->name << " has no checkpoint in tests/data/golden/tiny (scripts/golden)";
  }
}

}  // namespace
}  // namespace quire
