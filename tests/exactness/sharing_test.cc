// Answers that share blocks, copy them on write, or are swapped out and back, are the same bits as
// answers to requests that run alone, on every ISA level.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/hash.h"
#include "exactness/tiny_engine.h"

namespace quire {
namespace {

constexpr uint64_t kSeed = 7;
constexpr int kNumPrompts = 6, kNumAnswers = 3, kMaxTokens = 24;

using testing::AnswerBits;
using Answers = std::vector<std::vector<AnswerBits>>;  // [prompts][n]

class Sharing : public ::testing::TestWithParam<std::string> {
 protected:
  static EngineConfig config(int num_kv_tokens) {
    EngineConfig config = testing::small_config(*model(), num_kv_tokens);
    config.isa = GetParam();
    return config;
  }
  static std::shared_ptr<const Model> model() { return testing::tiny_model(); }
  static std::unique_ptr<Engine> engine(const EngineConfig& config) {
    return testing::make_engine(model(), config);
  }
  // Lengths 5 to 20: prompts end within a block and at its end.
  static Request request(int prompt, int n, uint64_t seed) {
    Request r;
    for (int i = 0; i < 5 + 3 * prompt; ++i) {
      r.prompt.push_back(static_cast<int32_t>(mix64(i) % model()->config().vocab_size));
    }
    r.sampling.n = n;
    r.sampling.seed = seed;
    r.sampling.logprobs = 3;
    r.sampling.max_tokens = kMaxTokens;
    r.sampling.ignore_eos = true;
    return r;
  }
  static Answers alone() {
    auto engine = Sharing::engine(config(4096));
    Answers all(kNumPrompts);
    for (int p = 0; p < kNumPrompts; ++p) {
      for (int i = 0; i < kNumAnswers; ++i) {
        const uint64_t seed = i == 0 ? kSeed : hash_combine(kSeed, i);
        TokenStream stream = engine->submit(request(p, 1, seed)).value();
        all[p].push_back(testing::read_bits(stream, 1)[0]);
      }
    }
    return all;
  }
  static Answers together(const EngineConfig& config, EngineStats* stats) {
    auto engine = Sharing::engine(config);
    std::vector<TokenStream> streams;
    for (int p = 0; p < kNumPrompts; ++p) {
      streams.push_back(engine->submit(request(p, kNumAnswers, kSeed)).value());
    }
    Answers all;
    for (TokenStream& stream : streams) all.push_back(testing::read_bits(stream, kNumAnswers));
    *stats = engine->stats();
    return all;
  }
};

TEST_P(Sharing, AnswersThatShareAPromptAreThoseOfSeparateRequests) {
  EngineStats stats;
  EXPECT_TRUE(together(config(4096), &stats) == alone());
  EXPECT_EQ(stats.num_preemptions, 0);
}

TEST_P(Sharing, AnswersDoNotDependOnPreemption) {
  const auto expected = alone();
  for (bool prefix_caching : {true, false}) {
    for (bool swaps : {true, false}) {
      EngineConfig small = config(160);
      small.enable_prefix_caching = prefix_caching;
      if (swaps) {
        small.preemption_mode = "swap";
        small.swap_space_bytes = 200 * testing::kv_bytes_per_token(*model());
      }
      EngineStats stats;
      EXPECT_TRUE(together(small, &stats) == expected) << prefix_caching << swaps;
      EXPECT_GT(stats.num_preemptions, 0) << prefix_caching << swaps;
      EXPECT_EQ(stats.num_swapped_out > 0, swaps);
      EXPECT_EQ(stats.num_swapped_out, stats.num_swapped_in);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny,
                         Sharing,
                         ::testing::ValuesIn(testing::levels_that_run()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace quire
