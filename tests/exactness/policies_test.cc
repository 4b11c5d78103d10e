// Every memory policy and every way of batching gives the bits of the paged cache, on a real model.
#include "engine/policies.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/hash.h"
#include "exactness/tiny_engine.h"

namespace quire {
namespace {

constexpr int kNumPrompts = 5, kMaxTokens = 24;

using testing::AnswerBits;
using Answers = std::vector<std::vector<AnswerBits>>;  // [prompts][n]

class Policies : public ::testing::TestWithParam<std::string_view> {
 protected:
  static Answers answers(const std::string& policy,
                         const std::string& batching,
                         EngineStats* stats) {
    const auto model = testing::tiny_model();
    // 48 blocks: three regions of the maximum length, too few for all that wants to grow.
    EngineConfig config = testing::small_config(*model, 48 * testing::kTinyBlockSize);
    config.max_model_len = 64;
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 64;
    config.kv_policy = policy;
    config.batching = batching;
    config.batch_size = 3;
    const auto engine = testing::make_engine(model, config);
    std::vector<TokenStream> streams;
    for (int p = 0; p < kNumPrompts; ++p) {
      streams.push_back(engine->submit(request(p, model->config().vocab_size)).value());
    }
    Answers all;
    for (int p = 0; p < kNumPrompts; ++p) {
      all.push_back(testing::read_bits(streams[p], num_answers(p)));
    }
    *stats = engine->stats();
    return all;
  }

 private:
  static int num_answers(int number) { return number == 2 ? 2 : 1; }
  static Request request(int number, int vocab_size) {
    Request r;
    for (int i = 0; i < 5 + 3 * number; ++i) {
      r.prompt.push_back(static_cast<int32_t>(mix64(number * 100 + i) % vocab_size));
    }
    r.sampling.n = num_answers(number);
    r.sampling.seed = 7;
    r.sampling.logprobs = 2;
    r.sampling.max_tokens = kMaxTokens - 4 * number;
    r.sampling.ignore_eos = true;
    return r;
  }
};

TEST_P(Policies, GiveTheBitsOfThePagedCacheUnderEveryWayOfBatching) {
  EngineStats stats;
  const Answers expected = answers("paged", "continuous", &stats);
  ASSERT_EQ(expected[0][0].tokens.size(), static_cast<size_t>(kMaxTokens));
  for (const char* batching : {"continuous", "dynamic", "static"}) {
    EXPECT_EQ(answers(std::string(GetParam()), batching, &stats), expected) << batching;
  }
  const int64_t once = stats.num_prompt_tokens + stats.num_generated_tokens;
  EXPECT_EQ(stats.num_computed_tokens > 5 * once, GetParam() == "off");
  EXPECT_EQ(stats.num_copied_blocks > 20, GetParam() == "grow");
}

INSTANTIATE_TEST_SUITE_P(Tiny, Policies, ::testing::ValuesIn(kKvPolicyNames), [](const auto& info) {
  return std::string(info.param);
});

}  // namespace
}  // namespace quire
