// Beam searches that share blocks with each other, find their prompts in the prefix cache, or are
// preempted and computed again or swapped out and back, give the same sequences and the same bits
// of their scores as searches that run alone.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "exactness/tiny_engine.h"

namespace quire {
namespace {

constexpr int kWidth = 4;

using Answers = std::vector<std::vector<testing::AnswerBits>>;  // [prompts][width]

struct BeamRun {
  std::shared_ptr<const Model> model;
  std::string isa;
  int num_prompts = 6, max_tokens = 16;

  EngineConfig config(int num_kv_tokens) const {
    EngineConfig config = testing::small_config(*model, num_kv_tokens);
    config.isa = isa;
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
  Answers run(const EngineConfig& config, bool one_at_a_time, EngineStats* stats) const {
    const auto engine = testing::make_engine(model, config);
    std::vector<TokenStream> streams;
    Answers answers;
    for (int p = 0; p < num_prompts; ++p) {
      streams.push_back(engine->submit(request(p)).value());
      if (one_at_a_time) answers.push_back(testing::read_bits(streams.back(), kWidth));
    }
    for (int p = 0; p < num_prompts && !one_at_a_time; ++p) {
      answers.push_back(testing::read_bits(streams[p], kWidth));
    }
    for (const auto& beams : answers) {
      for (const testing::AnswerBits& beam : beams) EXPECT_NE(beam.score, 0u);
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
          small.swap_space_bytes = 400 * testing::kv_bytes_per_token(*model);
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
  static BeamRun tiny() { return {testing::tiny_model(), GetParam()}; }
};

TEST_P(Beams, SearchesThatRunTogetherAreThoseThatRunAlone) {
  EngineStats stats;
  EXPECT_TRUE(tiny().run(tiny().config(4096), false, &stats) == tiny().alone());
  EXPECT_GT(stats.prefix_cache_hits, 0);
  EXPECT_EQ(stats.num_preemptions, 0);
}

TEST_P(Beams, DoNotDependOnPreemption) { tiny().expect_same_when_preempted(140); }

INSTANTIATE_TEST_SUITE_P(Tiny,
                         Beams,
                         ::testing::ValuesIn(testing::levels_that_run()),
                         [](const auto& info) { return info.param; });

TEST(ExactnessOfTheDefaultModelsBeams, DoNotDependOnPreemption) {
  const Result<std::filesystem::path> path = resolve_model("smollm2");
  if (!path.ok()) GTEST_SKIP() << path.status().message();
  const std::shared_ptr<const Model> model =
      load_model(*path, LoadOptions{.num_threads = 2}).value().model;
  BeamRun{model, "", 4, 12}.expect_same_when_preempted(96);
}

}  // namespace
}  // namespace quire
