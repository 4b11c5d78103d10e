// Memory and batching policies through the engine: same tokens, and what each is known for. Random
// workloads under every policy: tests/simulation.
#include "engine/policies.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/engine.h"
#include "simulation/fake_model_runner.h"

namespace quire {
namespace {

using std::chrono::milliseconds;

EngineConfig config_for(const std::string& policy, const std::string& batching = "continuous") {
  EngineConfig config;
  config.max_num_seqs = 8;
  config.max_num_batched_tokens = 32;
  config.max_model_len = 32;
  config.kv_policy = policy;
  config.batching = batching;
  config.batch_size = 3;
  config.batch_window_ms = 50;
  return config;
}

std::unique_ptr<Engine> make_engine(const EngineConfig& config, int max_in_flight = 1) {
  RunnerInfo info;
  info.num_blocks = 64;
  info.block_size = 4;
  info.vocab_size = 50;
  info.max_model_len = 32;
  info.max_logit_rows = 24;
  info.max_in_flight = max_in_flight;
  auto engine = Engine::create(config, std::make_unique<FakeModelRunner>(info));
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

Request request(int number, int max_tokens, int n = 1) {
  Request r;
  r.prompt = {number, 1, 2, 3, 4};
  r.sampling.max_tokens = max_tokens;
  r.sampling.n = n;
  r.sampling.ignore_eos = true;
  r.sampling.seed = fake_salt_seed("");
  return r;
}

std::vector<int32_t> expected(const Request& r, int sample_index = 0) {
  FakeHistory history(fake_salt_seed(""));
  for (int32_t token : r.prompt) history.append(token);
  std::vector<int32_t> tokens;
  for (int i = 0; i < r.sampling.max_tokens; ++i) {
    tokens.push_back(history.next_token(50, sample_index));
    history.append(tokens.back());
  }
  return tokens;
}

std::vector<std::vector<int32_t>> read_all(TokenStream& stream, int n) {
  std::vector<std::vector<int32_t>> answers(n);
  while (std::optional<TokenDelta> delta = stream.next()) {
    auto& answer = answers[delta->index];
    answer.insert(answer.end(), delta->tokens.begin(), delta->tokens.end());
  }
  return answers;
}

class PolicyTest : public testing::TestWithParam<std::string_view> {};

TEST_P(PolicyTest, AnswersHaveTheSameTokensUnderEveryWayOfBatching) {
  for (const char* batching : {"continuous", "dynamic", "static"}) {
    for (int in_flight : {1, 2}) {
      auto engine = make_engine(config_for(std::string(GetParam()), batching), in_flight);
      std::vector<Request> requests = {
          request(5, 9), request(6, 3, 2), request(7, 20), request(8, 1), request(9, 5)};
      std::vector<TokenStream> streams;
      for (const Request& r : requests) streams.push_back(engine->submit(r).value());
      for (size_t i = 0; i < requests.size(); ++i) {
        const int n = requests[i].sampling.n;
        const auto answers = read_all(streams[i], n);
        for (int index = 0; index < n; ++index) {
          EXPECT_EQ(answers[index], expected(requests[i], index)) << batching << " request " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PolicyTest, testing::ValuesIn(kKvPolicyNames), [](const auto& info) {
  return std::string(info.param);
});

TEST(Policies, AStaticBatchAnswersWhenItsLastMemberHasEnded) {
  auto engine = make_engine(config_for("max", "dynamic"));
  TokenStream quick = engine->submit(request(1, 1)).value();
  TokenStream slow = engine->submit(request(2, 20)).value();
  const TokenDelta first = *quick.next();  // everything at once
  EXPECT_EQ(first.tokens.size(), 1u);
  EXPECT_EQ(first.finish_reason, FinishReason::kLength);
  EXPECT_GE(engine->stats().num_steps, 20);
  const TokenDelta second = *slow.next();
  EXPECT_EQ(second.tokens.size(), 20u);
  EXPECT_GE(second.finish_time, second.first_token_time);
}

TEST(Policies, ADynamicBatchWaitsForItsWindowOrUntilItIsFull) {
  EngineConfig config = config_for("paged", "dynamic");
  config.batch_window_ms = 60'000;
  auto engine = make_engine(config);
  std::vector<TokenStream> streams;
  for (int i = 0; i < 2; ++i) streams.push_back(engine->submit(request(i, 2)).value());
  EXPECT_FALSE(streams[0].next_for(milliseconds(30)).has_value());
  EXPECT_EQ(engine->stats().num_steps, 0);
  streams.push_back(engine->submit(request(2, 2)).value());
  for (TokenStream& stream : streams) EXPECT_EQ(read_all(stream, 1)[0].size(), 2u);

  config.batch_window_ms = 5;
  engine = make_engine(config);
  TokenStream alone = engine->submit(request(3, 2)).value();
  EXPECT_EQ(read_all(alone, 1)[0].size(), 2u);
}

TEST(Policies, CancellingTheLastRunningMemberLetsTheOthersAnswer) {
  EngineConfig config = config_for("paged", "dynamic");
  config.batch_size = 2;
  config.batch_window_ms = 60'000;
  auto engine = make_engine(config);
  TokenStream quick = engine->submit(request(1, 1)).value();
  auto slow = std::make_unique<TokenStream>(engine->submit(request(2, 27)).value());
  while (engine->stats().num_steps == 0) std::this_thread::yield();  // the batch has begun
  slow.reset();
  EXPECT_EQ(read_all(quick, 1)[0].size(), 1u);
}

TEST(Policies, OracleEndsAnAnswerWhereItsRequestSaid) {
  auto engine = make_engine(config_for("oracle"));
  Request r = request(1, 20);
  r.sampling.expected_output_tokens = 6;
  TokenStream stream = engine->submit(r).value();
  EXPECT_EQ(read_all(stream, 1)[0].size(), 6u);
  r.sampling.expected_output_tokens = 21;
  const auto refused = engine->submit(r);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("expected_output_tokens"), std::string::npos);
  EXPECT_NE(refused.status().message().find("20"), std::string::npos);
}

TEST(Policies, GrowCopiesAndOffComputesAgain) {
  auto engine = make_engine(config_for("grow"));
  TokenStream stream = engine->submit(request(1, 20)).value();
  read_all(stream, 1);
  EXPECT_EQ(engine->stats().num_copied_blocks, 2 + 3 + 4 + 5);  // 5 tokens to 24, blocks of 4
  engine = make_engine(config_for("off"));
  stream = engine->submit(request(1, 4)).value();
  read_all(stream, 1);
  EXPECT_EQ(engine->stats().num_computed_tokens, 5 + 6 + 7 + 8);
}

TEST(Policies, RefusesARegionThatDoesNotFitWithTheNumbers) {
  auto engine = make_engine(config_for("max"));
  const auto refused = engine->submit(request(1, 4, 8));  // 8 x 8 blocks are all there are
  EXPECT_TRUE(refused.ok());
  EngineConfig config = config_for("grow");
  auto small = make_engine(config);
  const auto grown = small->submit(request(1, 20, 8));
  ASSERT_FALSE(grown.ok());
  for (const char* part : {"--kv-policy grow", "24 tokens", "9 times", "64 blocks", "8 such"}) {
    EXPECT_NE(grown.status().message().find(part), std::string::npos) << grown.status().message();
  }
  auto off = make_engine([] {
    EngineConfig config = config_for("off");
    config.max_num_batched_tokens = 10;
    return config;
  }());
  const auto chunked = off->submit(request(1, 20));
  ASSERT_FALSE(chunked.ok());
  for (const char* part : {"--kv-policy off", "24", "--max-num-batched-tokens is 10"}) {
    EXPECT_NE(chunked.status().message().find(part), std::string::npos);
  }
}

TEST(Policies, RefusesImpossibleCombinations) {
  EngineConfig config = config_for("pow3");
  EXPECT_NE(config.validate().message().find("--kv-policy must be one of"), std::string::npos);
  config = config_for("paged", "sometimes");
  EXPECT_NE(config.validate().message().find("--batching must be one of"), std::string::npos);
  config = config_for("max");
  config.preemption_mode = "swap";
  config.swap_space_bytes = 1 << 20;
  EXPECT_NE(config.validate().message().find("--kv-policy max has none to swap"),
            std::string::npos);
  config = config_for("off");
  config.long_prefill_token_threshold = 4;
  EXPECT_NE(config.validate().message().find("one piece"), std::string::npos);
  config = config_for("paged", "static");
  config.batch_size = 9;
  EXPECT_NE(config.validate().message().find("--max-num-seqs 8"), std::string::npos);
  config.batch_size = 0;
  EXPECT_NE(config.validate().message().find("--batch-size must be at least 1"), std::string::npos);
}

}  // namespace
}  // namespace quire
