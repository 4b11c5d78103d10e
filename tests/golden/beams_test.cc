// Beam search of the default model with f32 activations and an f32 KV cache finds the sequences
// that Hugging Face transformers finds with the same weights in float32
// (tests/data/golden/smollm2/beams.json), with the same scores.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/cpu_model_runner.h"
#include "engine/engine.h"
#include "model/loader.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

constexpr double kScoreTolerance = 1e-4;

struct Answer {
  std::vector<int32_t> tokens;
  double score = 0;
};

struct Search {
  Request request;
  std::vector<Answer> answers;  // best first
};

std::vector<int32_t> token_ids(const JsonValue& json) {
  std::vector<int32_t> ids;
  for (const JsonValue& id : *json.array()) ids.push_back(static_cast<int32_t>(*id.integer()));
  return ids;
}

EarlyStopping early_stopping(const JsonValue& json) {
  const auto boolean = json.boolean();
  if (!boolean) return EarlyStopping::kNever;
  return *boolean ? EarlyStopping::kTrue : EarlyStopping::kFalse;
}

std::vector<Search> read_searches() {
  const fs::path path = fs::path(QUIRE_TESTDATA) / "golden" / "smollm2" / "beams.json";
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const JsonValue json = parse_json(text).value();
  std::vector<Search> searches;
  for (const JsonValue& item : *json.get("searches")->array()) {
    Search search;
    search.request.prompt = token_ids(*item.get("prompt_ids"));
    SamplingParams& sampling = search.request.sampling;
    sampling.max_tokens = static_cast<int>(*json.get("max_tokens")->integer());
    sampling.beam_width = static_cast<int>(*item.get("beam_width")->integer());
    sampling.n = sampling.beam_width;
    sampling.length_penalty = *item.get("length_penalty")->number();
    sampling.early_stopping = early_stopping(*item.get("early_stopping"));
    for (const JsonValue& answer : *item.get("answers")->array()) {
      search.answers.push_back({token_ids(*answer.get("ids")), *answer.get("score")->number()});
    }
    searches.push_back(std::move(search));
  }
  return searches;
}

std::unique_ptr<Engine> exact_engine(const fs::path& model) {
  Result<LoadedModel> loaded = load_model(model, LoadOptions{.num_threads = 2});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  EngineConfig config;
  config.activations = "f32";
  config.kv_cache_dtype = "float32";
  config.kv_cache_memory_bytes = 256 << 20;
  config.max_num_seqs = 48;
  auto runner = CpuModelRunner::create(std::move(loaded.value().model), config);
  QUIRE_CHECK_MSG(runner.ok(), runner.status().message().c_str());
  auto engine = Engine::create(config, std::move(runner).value());
  QUIRE_CHECK_MSG(engine.ok(), engine.status().message().c_str());
  return std::move(engine).value();
}

TEST(SmolLm2BeamTest, FindsTheSequencesAndScoresOfTransformers) {
  const Result<fs::path> model = resolve_model("smollm2");
  if (!model.ok()) GTEST_SKIP() << model.status().message();
  const std::vector<Search> searches = read_searches();
  ASSERT_EQ(searches.size(), 96u);  // 32 prompts with widths 2, 4, 6
  const auto engine = exact_engine(*model);
  std::vector<TokenStream> streams;
  for (const Search& search : searches) {
    streams.push_back(engine->submit(search.request).value());
  }
  int num_answers = 0;
  double worst = 0;
  for (size_t i = 0; i < searches.size(); ++i) {
    while (std::optional<TokenDelta> delta = streams[i].next()) {
      ASSERT_TRUE(delta->error.ok()) << delta->error.message();
      const Answer& want = searches[i].answers[delta->index];
      EXPECT_EQ(delta->tokens, want.tokens) << "search " << i << ", answer " << delta->index;
      ASSERT_TRUE(delta->score.has_value());
      EXPECT_NEAR(*delta->score, want.score, kScoreTolerance)
          << "search " << i << ", answer " << delta->index;
      worst = std::max(worst, std::abs(*delta->score - want.score));
      ++num_answers;
    }
  }
  EXPECT_EQ(num_answers, 32 * (2 + 4 + 6));
  std::printf("%d answers, the score differs by %.2g at most\n", num_answers, worst);
}

}  // namespace
}  // namespace quire
