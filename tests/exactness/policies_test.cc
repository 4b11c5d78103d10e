// Every memory policy and every way of batching gives the bits of the paged cache, on a real model.
#include "engine/policies.h"

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
#include "kernels/ops.h"
#include "model/loader.h"

namespace quire {
namespace {

constexpr int kNumPrompts = 5, kMaxTokens = 24;

// The tokens and the bits of their log-probabilities, of all answers in turn.
struct Bits {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> logprobs;
  bool operator==(const Bits&) const = default;
};

class Policies : public ::testing::TestWithParam<std::string_view> {
 protected:
  static std::vector<Bits> answers(const std::string& policy,
                                   const std::string& batching,
                                   EngineStats* stats) {
    static const std::shared_ptr<const Model> model =
        load_model(std::filesystem::path(QUIRE_TESTDATA) / "golden" / "tiny" / "llama_gqa",
                   LoadOptions{})
            .value()
            .model;
    const ModelConfig& m = model->config();
    EngineConfig config;
    config.num_threads = 2;
    config.block_size = 4;
    config.max_model_len = 64;
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 64;
    config.kv_policy = policy;
    config.batching = batching;
    config.batch_size = 3;
    // 48 blocks: three regions of the maximum length, too few for all that wants to grow.
    config.kv_cache_memory_bytes =
        48 * m.num_layers * kv_block_bytes({DType::kF16, 4, m.num_kv_heads, m.head_dim});
    auto engine = Engine::create(config, CpuModelRunner::create(model, config).value()).value();
    std::vector<TokenStream> streams;
    for (int p = 0; p < kNumPrompts; ++p) {
      streams.push_back(engine->submit(request(p, m.vocab_size)).value());
    }
    std::vector<Bits> all;
    for (TokenStream& stream : streams) all.push_back(read(stream));
    *stats = engine->stats();
    return all;
  }

 private:
  static Request request(int number, int vocab_size) {
    Request r;
    for (int i = 0; i < 5 + 3 * number; ++i) {
      r.prompt.push_back(static_cast<int32_t>(mix64(number * 100 + i) % vocab_size));
    }
    r.sampling.n = number == 2 ? 2 : 1;
    r.sampling.seed = 7;
    r.sampling.logprobs = 2;
    r.sampling.max_tokens = kMaxTokens - 4 * number;
    r.sampling.ignore_eos = true;
    return r;
  }
  static Bits read(TokenStream& stream) {
    Bits answers[2];
    while (std::optional<TokenDelta> delta = stream.next()) {
      EXPECT_TRUE(delta->error.ok()) << delta->error.message();
      Bits& bits = answers[delta->index];
      bits.tokens.insert(bits.tokens.end(), delta->tokens.begin(), delta->tokens.end());
      for (const LogprobList& list : delta->logprobs) {
        for (const TokenLogprob& l : list) {
          bits.logprobs.push_back(std::bit_cast<uint32_t>(l.logprob));
        }
      }
    }
    answers[0].tokens.insert(
        answers[0].tokens.end(), answers[1].tokens.begin(), answers[1].tokens.end());
    answers[0].logprobs.insert(
        answers[0].logprobs.end(), answers[1].logprobs.begin(), answers[1].logprobs.end());
    return answers[0];
  }
};

TEST_P(Policies, GiveTheBitsOfThePagedCacheUnderEveryWayOfBatching) {
  EngineStats stats;
  const std::vector<Bits> expected = answers("paged", "continuous", &stats);
  ASSERT_EQ(expected[0].tokens.size(), static_cast<size_t>(kMaxTokens));
  for (const char* batching : {"continuous", "dynamic", "static"}) {
    EXPECT_EQ(answers(std::string(GetParam()), batching, &stats), expected) << batching;
  }
  const int64_t once = stats.num_prompt_tokens + stats.num_generated_tokens;
  EXPECT_EQ(stats.num_computed_tokens > 5 * once, GetParam() == "off");
  EXPECT_EQ(stats.num_copied_blocks > 20, GetParam() == "grow");
}

INSTANTIATE_TEST_SUITE_P(Tiny, Policies, testing::ValuesIn(kKvPolicyNames), [](const auto& info) {
  return std::string(info.param);
});

}  // namespace
}  // namespace quire
