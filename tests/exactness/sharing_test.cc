// Answers that share blocks, copy them on write, or are swapped out and back, are the same bits as
// answers to requests that run alone, on every ISA level.
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

constexpr uint64_t kSeed = 7;
constexpr int kNumPrompts = 6, kNumAnswers = 3, kMaxTokens = 24;

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> logprob_bits;  // of the sampled token and its alternatives
  bool operator==(const Answer&) const = default;
};

class Sharing : public ::testing::TestWithParam<std::string> {
 protected:
  static EngineConfig config(int num_kv_tokens) {
    EngineConfig config;
    config.isa = GetParam();
    config.num_threads = 2;
    config.block_size = 4;
    config.max_num_seqs = 12;
    config.max_num_batched_tokens = 40;
    config.kv_cache_memory_bytes = num_kv_tokens * bytes_per_token();
    return config;
  }
  static std::shared_ptr<const Model> model() {
    static const std::shared_ptr<const Model> model =
        load_model(fs::path(QUIRE_TESTDATA) / "golden" / "tiny" / "llama_gqa", LoadOptions{})
            .value()
            .model;
    return model;
  }
  static int64_t bytes_per_token() {
    const ModelConfig& m = model()->config();
    return kv_block_bytes({DType::kF16, 4, m.num_kv_heads, m.head_dim}) / 4 * m.num_layers;
  }
  static std::unique_ptr<Engine> engine(const EngineConfig& config) {
    auto runner = CpuModelRunner::create(model(), config);
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    return Engine::create(config, std::move(runner).value()).value();
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
  static std::vector<Answer> read(TokenStream stream, int n) {
    std::vector<Answer> answers(n);
    while (std::optional<TokenDelta> delta = stream.next()) {
      EXPECT_TRUE(delta->error.ok()) << delta->error.message();
      Answer& answer = answers[delta->index];
      answer.tokens.insert(answer.tokens.end(), delta->tokens.begin(), delta->tokens.end());
      for (const LogprobList& list : delta->logprobs) {
        for (const TokenLogprob& l : list) {
          answer.logprob_bits.push_back(std::bit_cast<uint32_t>(l.logprob));
        }
      }
    }
    return answers;
  }
  static std::vector<std::vector<Answer>> alone() {
    auto engine = Sharing::engine(config(4096));
    std::vector<std::vector<Answer>> all(kNumPrompts);
    for (int p = 0; p < kNumPrompts; ++p) {
      for (int i = 0; i < kNumAnswers; ++i) {
        const uint64_t seed = i == 0 ? kSeed : hash_combine(kSeed, i);
        all[p].push_back(read(engine->submit(request(p, 1, seed)).value(), 1)[0]);
      }
    }
    return all;
  }
  static std::vector<std::vector<Answer>> together(const EngineConfig& config, EngineStats* stats) {
    auto engine = Sharing::engine(config);
    std::vector<TokenStream> streams;
    for (int p = 0; p < kNumPrompts; ++p) {
      streams.push_back(engine->submit(request(p, kNumAnswers, kSeed)).value());
    }
    std::vector<std::vector<Answer>> all;
    for (TokenStream& stream : streams) all.push_back(read(std::move(stream), kNumAnswers));
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
        small.swap_space_bytes = 200 * bytes_per_token();
      }
      EngineStats stats;
      EXPECT_TRUE(together(small, &stats) == expected) << prefix_caching << swaps;
      EXPECT_GT(stats.num_preemptions, 0) << prefix_caching << swaps;
      EXPECT_EQ(stats.num_swapped_out > 0, swaps);
      EXPECT_EQ(stats.num_swapped_out, stats.num_swapped_in);
    }
  }
}

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) names.push_back(level.name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Sharing, ::testing::ValuesIn(levels()), [](const auto& info) {
  return info.param;
});

}  // namespace
}  // namespace quire
