// The default model, where it has been fetched (scripts/get-model smollm2): its weights are read,
// packed and run as Hugging Face transformers runs the same dequantised weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "golden/golden_data.h"
#include "model/loader.h"
#include "model/model_run.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::GoldenPrompt;
using testing::ModelRun;
using testing::RunOptions;

class SmolLm2Test : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    Result<fs::path> path = resolve_model("smollm2");
    if (!path.ok()) return;
    Result<LoadedModel> loaded = load_model(*path, LoadOptions{.num_threads = 2});
    QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
    loaded_ = new LoadedModel(std::move(loaded).value());
  }
  static void TearDownTestSuite() {
    delete loaded_;
    loaded_ = nullptr;
  }
  void SetUp() override {
    if (loaded_ == nullptr) GTEST_SKIP() << "smollm2 is not here (scripts/get-model smollm2)";
  }
  const OpTable* best_ops() { return select_ops("").value(); }

  static LoadedModel* loaded_;
};

LoadedModel* SmolLm2Test::loaded_ = nullptr;

int32_t argmax(const float* logits, int64_t count) {
  return static_cast<int32_t>(std::max_element(logits, logits + count) - logits);
}

// softmax(logits) as log-probabilities, in double.
std::vector<double> log_softmax(const float* logits, size_t count) {
  const double max = *std::max_element(logits, logits + count);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(logits[i] - max);
  std::vector<double> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = logits[i] - max - std::log(sum);
  return out;
}

struct Agreement {
  double worst = 0, range = 0;  // of logits
  double kl_sum = 0;            // of reference || ours
  int64_t same_top = 0, rows = 0;
};

// `got` holds all rows of the prompt, the golden file some.
void compare(const GoldenPrompt& prompt,
             const std::vector<float>& got,
             size_t vocab,
             Agreement* out) {
  const auto [low, high] = std::minmax_element(prompt.logits.begin(), prompt.logits.end());
  out->range = std::max<double>(out->range, *high - *low);
  for (size_t i = 0; i < prompt.positions.size(); ++i) {
    const float* want = prompt.logits.data() + i * vocab;
    const float* have = got.data() + static_cast<size_t>(prompt.positions[i]) * vocab;
    const std::vector<double> p = log_softmax(want, vocab), q = log_softmax(have, vocab);
    for (size_t v = 0; v < vocab; ++v) {
      out->worst = std::max(out->worst, std::abs(static_cast<double>(have[v]) - want[v]));
      out->kl_sum += std::exp(p[v]) * (p[v] - q[v]);
    }
    const auto count = static_cast<int64_t>(vocab);
    out->same_top += argmax(want, count) == argmax(have, count);
    out->rows += 1;
  }
}

TEST_F(SmolLm2Test, FilesSayWhatTheModelIs) {
  const ModelInfo& info = loaded_->info;
  EXPECT_EQ(info.config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(info.config.num_layers, 30);
  EXPECT_EQ(info.config.hidden_size, 576);
  EXPECT_EQ(info.config.vocab_size, 49152);
  EXPECT_EQ(info.config.eos_token_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(info.special_tokens.eos, "<|im_end|>");
  ASSERT_TRUE(info.chat_template.has_value());
  EXPECT_EQ(std::get<GgufTokenizerSpec>(info.tokenizer).pre, "smollm");
}

// "The capital of France is" -> " Paris", in every mode and on every level that is fast enough.
TEST_F(SmolLm2Test, KnowsTheCapitalOfFrance) {
  const auto& tokens = std::get<GgufTokenizerSpec>(loaded_->info.tokenizer).tokens;
  std::vector<int32_t> prompt;
  for (const char* word : {"The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"}) {
    const auto it = std::find(tokens.begin(), tokens.end(), word);
    ASSERT_NE(it, tokens.end()) << word;
    prompt.push_back(static_cast<int32_t>(it - tokens.begin()));
  }
  const int64_t vocab = loaded_->model->config().vocab_size;
  for (ActivationType type : {ActivationType::kF32, ActivationType::kInt16}) {
    for (DType kv : {DType::kF32, DType::kF16}) {
      const RunOptions options{.ops = best_ops(), .activations = type, .kv_dtype = kv};
      ModelRun run(*loaded_->model, options, 16, 5);
      const int32_t last_row[] = {4};
      const std::vector<float> logits = run.step(prompt, last_row);
      EXPECT_EQ(tokens[static_cast<size_t>(argmax(logits.data(), vocab))], "ĠParis");
    }
  }
}

class SmolLm2GoldenTest : public SmolLm2Test {
 protected:
  // Logits of every prompt of the golden files against the reference's.
  Agreement agreement(const RunOptions& options) {
    Agreement result;
    const size_t vocab = static_cast<size_t>(loaded_->model->config().vocab_size);
    for (const fs::path& file : files_) {
      for (const GoldenPrompt& prompt : testing::read_golden(file)) {
        compare(prompt,
                testing::logits_in_chunks(*loaded_->model, options, prompt.tokens, 512),
                vocab,
                &result);
      }
    }
    return result;
  }
  void SetUp() override {
    SmolLm2Test::SetUp();
    if (IsSkipped()) return;
    for (const auto& entry : fs::directory_iterator(fs::path(QUIRE_TESTDATA) / "golden")) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("smollm2_") && name.ends_with(".safetensors")) {
        files_.push_back(entry.path());
      }
    }
    if (files_.empty()) GTEST_SKIP() << "no smollm2_*.safetensors in tests/data/golden";
  }
  std::vector<fs::path> files_;
};

TEST_F(SmolLm2GoldenTest, F32ModeEqualsTheReference) {
  const Agreement a = agreement({.ops = best_ops()});
  RecordProperty("worst_over_range", std::to_string(a.worst / a.range));
  EXPECT_LE(a.worst, 1e-3 * a.range);
}

TEST_F(SmolLm2GoldenTest, DefaultModeAnswersLikeTheReference) {
  const Agreement a = agreement(
      {.ops = best_ops(), .activations = ActivationType::kInt16, .kv_dtype = DType::kF16});
  RecordProperty("mean_kl", std::to_string(a.kl_sum / static_cast<double>(a.rows)));
  EXPECT_LE(a.kl_sum / static_cast<double>(a.rows), 1e-5);
  EXPECT_GE(static_cast<double>(a.same_top), 0.995 * static_cast<double>(a.rows));
}

}  // namespace
}  // namespace quire
