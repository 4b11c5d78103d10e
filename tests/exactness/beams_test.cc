// Beam searches that share blocks with each other, find their prompts in the prefix cache, or are
// preempted and computed again or swapped out and back, give the same sequences and the same bits
// of their scores as searches that run alone.
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "engine/cpu_model_runner.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "model/loader.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

constexpr int kBlockSize = 4, kWidth = 4;

struct Answer {
  std::vector<int32_t> tokens;
  uint64_t score_bits = 0;
  bool operator==(const Answer&) const = default;
};
using Answers = std::vector<std::vector<Answer>>;  // [prompts][width]

struct BeamRun {
  std::shared_ptr<const Model> model;
  std::string isa;
  int num_prompts = 6, max_tokens = 16;

  int64_t bytes_per_token() const {
    const ModelConfig& m = model->config();
    return kv_block_bytes({DType::kF16, kBlockSize, m.num_kv_heads, m.head_dim}) / kBlockSize *
           m.num_layers;
  }
  EngineConfig config(int num_kv_tokens) const {
    EngineConfig config;
    config.isa = isa;
    config.num_threads = 2;
    config.block_size = kBlockSize;
    config.max_num_seqs = 3 * kWidth;
    config.max_num_batched_tokens = 40;
    config.kv_cache_memory_bytes = num_kv_tokens * bytes_per_token();
    return config;
  }
  // Two families of prompts with a common beginning, 6 to 21 tokens long.
  Request request(int prompt) const {
    Request r;
    for (int i = 0; i < 6 + 3 * prompt; ++i) {
      const uint64_t random = mix64(i + 1000 * (prompt % 2));
      r.prompt.push_back(static_cast<int32_t>(random % model->config().vocab_size));
    }
    r.sampling.beam_width = r.sampling.n = kWidth;
    r.sampling.max_tokens = max_tokens;
    r.sampling.early_stopping = prompt % 2 == 0 ? EarlyStopping::kFalse : EarlyStopping::kNever;
    r.sampling.ignore_eos = prompt % 3 == 0;
    return r;
  }
  static std::vector<Answer> read(TokenStream stream) {
    std::vector<Answer> answers(kWidth);
    while (std::optional<TokenDelta> delta = stream.next()) {
      EXPECT_TRUE(delta->error.ok()) << delta->error.message();
      answers[delta->index] = {delta->tokens, std::bit_cast<uint64_t>(delta->score.value())};
    }
    return answers;
  }
  Answers run(const EngineConfig& config, bool one_at_a_time, EngineStats* stats) const {
    auto runner = CpuModelRunner::create(model, config);
    QUIRE_CHECK_MSG(runner.ok(), runner.status().message().c_str());
    const auto engine = Engine::create(config, std::move(runner).value()).value();
    std::vector<TokenStream> streams;
    Answers answers;
    for (int p = 0; p < num_prompts; ++p) {
      streams.push_back(engine->submit(request(p)).value());
      if (one_at_a_time) answers.push_back(read(std::move(streams.back())));
    }
    for (int p = 0; p < num_prompts && !one_at_a_time; ++p) {
      answers.push_back(read(std::move(streams[p])));
    }
    *stats = engine->stats();
    return answers;
  }
  Answers alone() const {
    EngineConfig plain = config(4096);
    plain.enable_prefix_caching = false;
    EngineStats stats;
    return run(plain, true, &stats);
  }
  // In a pool too small for all of them.
  void expect_same_when_preempted(int num_kv_tokens) const {
    const Answers expected = alone();
    for (bool prefix_caching : {true, false}) {
      for (bool swaps : {true, false}) {
        EngineConfig small = config(num_kv_tokens);
        small.enable_prefix_caching = prefix_caching;
        if (swaps) {
          small.preemption_mode = "swap";
          small.swap_space_bytes = 400 * bytes_per_token();
        }
        EngineStats stats;
        EXPECT_TRUE(run(small, false, &stats) == expected) << prefix_caching << swaps;
        EXPECT_GT(stats.num_preemptions, 0) << prefix_caching << swaps;
        EXPECT_EQ(stats.num_swapped_out > 0, swaps);
        EXPECT_EQ(stats.num_swapped_out, stats.num_swapped_in);
      }
    }
  }
};

class Beams : public ::testing::TestWithParam<std::string> {
 protected:
  static BeamRun tiny() {
    static const std::shared_ptr<const Model> model =
        load_model(fs::path(QUIRE_TESTDATA) / "golden" / "tiny" / "llama_gqa", LoadOptions{})
            .value()
            .model;
    return {model, GetParam()};
  }
};

TEST_P(Beams, SearchesThatRunTogetherAreThoseThatRunAlone) {
  EngineStats stats;
  EXPECT_TRUE(tiny().run(tiny().config(4096), false, &stats) == tiny().alone());
  EXPECT_GT(stats.prefix_cache_hits, 0);
  EXPECT_EQ(stats.num_preemptions, 0);
}

TEST_P(Beams, DoNotDependOnPreemption) { tiny().expect_same_when_preempted(140); }

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) names.push_back(level.name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Beams, ::testing::ValuesIn(levels()), [](const auto& info) {
  return info.param;
});

TEST(ExactnessOfTheDefaultModelsBeams, DoNotDependOnPreemption) {
  const Result<fs::path> path = resolve_model("smollm2");
  if (!path.ok()) GTEST_SKIP() << path.status().message();
  const std::shared_ptr<const Model> model =
      load_model(*path, LoadOptions{.num_threads = 2}).value().model;
  BeamRun{model, "", 4, 12}.expect_same_when_preempted(96);
}

}  // namespace
}  // namespace quire
