#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/engine_harness.h"

namespace quire {
namespace {

using std::chrono::milliseconds;

RunnerInfo runner_info(int max_in_flight = 1) {
  RunnerInfo info;
  info.num_blocks = 64;
  info.block_size = 4;
  info.vocab_size = 50;
  info.max_model_len = 128;
  info.max_logit_rows = 24;
  info.max_in_flight = max_in_flight;
  info.eos_token_ids = {0};
  return info;
}

std::unique_ptr<Engine> make_engine(const EngineConfig& config = engine_config(),
                                    int max_in_flight = 1) {
  return make_engine(std::make_unique<FakeModelRunner>(runner_info(max_in_flight)), config);
}

Request request(std::vector<int32_t> prompt, int max_tokens) {
  Request r;
  r.prompt = std::move(prompt);
  r.sampling.max_tokens = max_tokens;
  r.sampling.ignore_eos = true;
  r.sampling.seed = fake_salt_seed("");
  return r;
}

std::vector<int32_t> expected(const std::vector<int32_t>& prompt,
                              int num_tokens,
                              int sample_index = 0) {
  FakeHistory history(fake_salt_seed(""));
  for (int32_t token : prompt) history.append(token);
  std::vector<int32_t> tokens;
  for (int i = 0; i < num_tokens; ++i) {
    tokens.push_back(history.next_token(50, sample_index));
    history.append(tokens.back());
  }
  return tokens;
}

// Reads to the end; the deltas as one.
TokenDelta read_all(TokenStream& stream) {
  TokenDelta all;
  while (std::optional<TokenDelta> delta = stream.next()) {
    all.tokens.insert(all.tokens.end(), delta->tokens.begin(), delta->tokens.end());
    all.logprobs.insert(all.logprobs.end(), delta->logprobs.begin(), delta->logprobs.end());
    all.prompt_logprobs.insert(
        all.prompt_logprobs.end(), delta->prompt_logprobs.begin(), delta->prompt_logprobs.end());
    const auto keep = std::move(all);
    all = *delta;
    all.tokens = keep.tokens;
    all.logprobs = keep.logprobs;
    all.prompt_logprobs = keep.prompt_logprobs;
  }
  return all;
}

void expect_idle(Engine& engine) {
  for (int i = 0; i < 2000 && engine.stats().num_used_blocks > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(engine.stats().num_used_blocks, 0);
  EXPECT_EQ(engine.stats().num_running, 0);
  EXPECT_EQ(engine.stats().num_waiting, 0);
}

TEST(Engine, StreamsExactlyTheModelsTokens) {
  for (int in_flight : {1, 2}) {
    auto engine = make_engine(engine_config(), in_flight);
    auto stream = engine->submit(request({1, 2, 3}, 20));
    ASSERT_TRUE(stream.ok());
    const TokenDelta all = read_all(*stream);
    EXPECT_EQ(all.tokens, expected({1, 2, 3}, 20));
    EXPECT_EQ(all.finish_reason, FinishReason::kLength);
    EXPECT_GT(all.first_token_time, 0);
    EXPECT_GE(all.first_token_time, all.scheduled_time);
    EXPECT_GE(all.finish_time, all.first_token_time);
    EXPECT_TRUE(stream->finished());
    EXPECT_FALSE(stream->next().has_value());
    expect_idle(*engine);
  }
}

TEST(Engine, TheStopTokenIsDeliveredAndNamed) {
  auto engine = make_engine();
  const std::vector<int32_t> tokens = expected({7, 8}, 12);
  Request r = request({7, 8}, 12);
  r.sampling.stop_token_ids = {tokens[4]};
  auto stream = engine->submit(r);
  const TokenDelta all = read_all(*stream);
  const auto first = std::find(tokens.begin(), tokens.end(), tokens[4]);
  EXPECT_EQ(all.tokens, (std::vector<int32_t>(tokens.begin(), first + 1)));
  EXPECT_EQ(all.finish_reason, FinishReason::kStop);
  EXPECT_EQ(all.stop_token, tokens[4]);
}

TEST(Engine, PromptLogprobsAndLogitsComeOnceForEveryPosition) {
  auto engine = make_engine();
  std::vector<int32_t> prompt(40);
  for (int i = 0; i < 40; ++i) prompt[i] = i;
  Request r = request(prompt, 5);
  r.sampling.prompt_logprobs = 0;
  r.sampling.logprobs = 0;
  auto positions = std::make_shared<std::vector<int>>();
  r.logits_tap = [positions](int position, std::span<const float> logits) {
    EXPECT_EQ(logits.size(), 50u);
    positions->push_back(position);
  };
  auto stream = engine->submit(r);
  const TokenDelta all = read_all(*stream);
  ASSERT_EQ(all.prompt_logprobs.size(), 39u);
  for (int i = 0; i < 39; ++i) {
    EXPECT_EQ(all.prompt_logprobs[i][0].token, prompt[i + 1]);
    EXPECT_EQ(all.prompt_logprobs[i][0].logprob, i);
  }
  ASSERT_EQ(all.logprobs.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(all.logprobs[i][0].token, all.tokens[i]);
  ASSERT_EQ(positions->size(), 44u);
  for (int i = 0; i < 44; ++i) EXPECT_EQ((*positions)[i], i);
}

TEST(Engine, DestroyingTheStreamCancelsTheRequest) {
  auto runner = std::make_unique<GatedRunner>(runner_info());
  const auto gate = runner->gate;
  auto engine = Engine::create(engine_config(), std::move(runner)).value();
  {
    auto stream = engine->submit(request({1, 2, 3}, 100));
    gate->update([](int& open) { open += 2; });
    ASSERT_TRUE(stream->next().has_value());
  }
  gate->update([](int& open) { open += 2; });  // far fewer steps than 100 tokens take
  expect_idle(*engine);
  EXPECT_LT(engine->stats().num_generated_tokens, 10);
  gate->update([](int& open) { open += 1000; });
}

TEST(Engine, CancelEndsTheStreamWithAborted) {
  auto engine = make_engine();
  auto stream = engine->submit(request({1, 2, 3}, 100));
  stream->cancel();
  const TokenDelta all = read_all(*stream);
  EXPECT_TRUE(all.finish_reason == FinishReason::kAborted || all.tokens.size() == 100u);
  expect_idle(*engine);
}

TEST(Engine, ASlowReaderHoldsNobodyUpAndLosesNothing) {
  auto engine = make_engine();
  auto slow = engine->submit(request({1, 2, 3}, 100));
  for (int i = 0; i < 5; ++i) {
    auto quick = engine->submit(request({4, i}, 10));
    EXPECT_EQ(read_all(*quick).tokens, expected({4, i}, 10));
  }
  expect_idle(*engine);
  EXPECT_EQ(read_all(*slow).tokens, expected({1, 2, 3}, 100));
}

TEST(Engine, AFullQueueRefusesAndLaterTakesMore) {
  EngineConfig config = engine_config();
  config.max_num_queued_reqs = 3;
  auto runner = std::make_unique<GatedRunner>(runner_info());
  const auto gate = runner->gate;
  auto engine = Engine::create(config, std::move(runner)).value();
  std::vector<TokenStream> streams;
  auto first = engine->submit(request({1}, 4));
  ASSERT_TRUE(first.ok());
  streams.push_back(std::move(*first));
  while (engine->stats().num_running == 0 && engine->stats().num_waiting == 0) {
    std::this_thread::yield();
  }
  std::this_thread::sleep_for(milliseconds(20));  // the first one is scheduled and at the gate
  Status refused;
  for (int i = 0; i < 4 && refused.ok(); ++i) {
    auto stream = engine->submit(request({1, i}, 4));
    if (stream.ok()) streams.push_back(std::move(*stream));
    refused = stream.status();
  }
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("3 requests wait already"), std::string::npos);
  gate->update([](int& open) { open += 1000; });
  for (TokenStream& stream : streams) EXPECT_EQ(read_all(stream).tokens.size(), 4u);
  EXPECT_TRUE(engine->submit(request({1}, 1)).ok());
}

TEST(Engine, RefusesBadRequestsAtOnceWithTheReason) {
  auto engine = make_engine();
  const auto message = [&](Request r) { return engine->submit(std::move(r)).status().message(); };
  EXPECT_NE(message(request({}, 4)).find("at least 1 token"), std::string::npos);
  EXPECT_NE(message(request(std::vector<int32_t>(128, 1), 4)).find("max_model_len is 128"),
            std::string::npos);
  EXPECT_NE(message(request({50}, 4)).find("prompt token 50"), std::string::npos);
  Request r = request({1}, 4);
  r.sampling.temperature = -1;
  EXPECT_NE(message(r).find("temperature must be"), std::string::npos);
  r = request({1}, 4);
  r.sampling.logprobs = 21;
  EXPECT_NE(message(r).find("[0, 20] (--max-logprobs"), std::string::npos);
}

TEST(Engine, ARunnerFailureEndsEveryRequestWithTheError) {
  auto runner = std::make_unique<FakeModelRunner>(runner_info());
  runner->fail_at_launch = 3;
  auto engine = Engine::create(engine_config(), std::move(runner)).value();
  auto a = engine->submit(request({1}, 100)), b = engine->submit(request({2}, 100));
  for (auto* stream : {&a, &b}) {
    if (!stream->ok()) continue;  // the engine may have failed before the second submit
    const TokenDelta all = read_all(**stream);
    EXPECT_EQ(all.finish_reason, FinishReason::kError);
    EXPECT_NE(all.error.message().find("the fake device is gone"), std::string::npos);
  }
  const auto later = engine->submit(request({3}, 1));
  EXPECT_NE(later.status().message().find("the engine has stopped"), std::string::npos);
}

TEST(Engine, NotANumberEndsOnlyThatStepsRequests) {
  auto runner = std::make_unique<FakeModelRunner>(runner_info());
  runner->invalid_at_launch = 2;
  auto engine = Engine::create(engine_config(), std::move(runner)).value();
  auto bad = engine->submit(request({1, 2}, 10));
  const TokenDelta all = read_all(*bad);
  EXPECT_EQ(all.finish_reason, FinishReason::kError);
  EXPECT_EQ(all.tokens, expected({1, 2}, 2));
  EXPECT_NE(all.error.message().find("not finite"), std::string::npos);
  auto good = engine->submit(request({1, 2}, 10));
  EXPECT_EQ(read_all(*good).tokens, expected({1, 2}, 10));
}

TEST(Engine, DestructorEndsWorkInFlight) {
  std::optional<TokenStream> stream;
  {
    auto runner = std::make_unique<GatedRunner>(runner_info());
    const auto gate = runner->gate;
    auto engine = Engine::create(engine_config(), std::move(runner)).value();
    stream = engine->submit(request({1, 2, 3}, 100)).value();
    gate->update([](int& open) { open += 3; });
    ASSERT_TRUE(stream->next().has_value());
    std::thread opener([&] {
      std::this_thread::sleep_for(milliseconds(10));
      gate->update([](int& open) { open += 1000; });
    });
    engine.reset();
    opener.join();
  }
  TokenDelta last;
  while (auto delta = stream->next()) last = *delta;
  EXPECT_TRUE(last.finish_reason == FinishReason::kAborted ||
              last.finish_reason == FinishReason::kLength);
}

TEST(Engine, StormOfSubmitsAndCancelsFromManyThreads) {
  for (int in_flight : {1, 2}) {
    EngineConfig config = engine_config();
    config.max_num_queued_reqs = 8;
    auto engine = make_engine(config, in_flight);
    std::atomic<int> finished{0}, refused{0}, dropped{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 60; ++i) {
          const std::vector<int32_t> prompt = {t, i % 50, 3, 4, 5};
          auto stream = engine->submit(request(prompt, 1 + i % 20));
          if (!stream.ok()) {
            ++refused;
            std::this_thread::yield();
            continue;
          }
          if (i % 3 == 0) {
            if (i % 2 == 0) stream->next_for(milliseconds(1));
            ++dropped;  // cancelled by the destructor
            continue;
          }
          EXPECT_EQ(read_all(*stream).tokens, expected(prompt, 1 + i % 20));
          ++finished;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(finished + refused + dropped, 240);
    EXPECT_GT(finished, 0);
    expect_idle(*engine);
  }
}

TEST(Engine, RequestsWithoutASeedGetOneFromTheEnginesSeed) {
  // The fake model's tokens depend on the seed, so equal tokens mean equal seeds.
  const auto tokens = [](uint64_t seed) {
    EngineConfig config = engine_config();
    config.seed = seed;
    auto engine = make_engine(config);
    Request r = request({1, 2, 3}, 8);
    r.sampling.seed.reset();
    auto stream = engine->submit(r);
    return read_all(*stream).tokens;
  };
  EXPECT_EQ(tokens(1), tokens(1));
  EXPECT_NE(tokens(1), tokens(2));
}

TEST(Engine, GivesEachOfNAnswersOnceAndToTheEnd) {
  for (int max_in_flight : {1, 2}) {
    auto engine = make_engine(engine_config(), max_in_flight);
    Request r = request({1, 2, 3, 4, 5, 6}, 9);
    r.sampling.n = 3;
    auto stream = engine->submit(r).value();
    std::vector<std::vector<int32_t>> answers(3);
    std::vector<FinishReason> reasons(3, FinishReason::kNone);
    while (std::optional<TokenDelta> delta = stream.next()) {
      ASSERT_EQ(reasons.at(delta->index), FinishReason::kNone);
      auto& answer = answers[delta->index];
      answer.insert(answer.end(), delta->tokens.begin(), delta->tokens.end());
      reasons[delta->index] = delta->finish_reason;
    }
    EXPECT_TRUE(stream.finished());
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(answers[i], expected({1, 2, 3, 4, 5, 6}, 9, i)) << "answer " << i;
      EXPECT_EQ(reasons[i], FinishReason::kLength);
    }
    EXPECT_EQ(engine->stats().num_prompt_tokens, 6);
  }
}

TEST(Engine, CancelsAllAnswersWithTheirStream) {
  auto engine = make_engine();
  Request r = request({1, 2, 3}, 60);
  r.sampling.n = 4;
  {
    auto stream = engine->submit(r).value();
    ASSERT_TRUE(stream.next().has_value());
  }
  auto other = engine->submit(request({7}, 3)).value();
  EXPECT_EQ(read_all(other).tokens, expected({7}, 3));
  EXPECT_EQ(engine->stats().num_running, 0);
}

TEST(Engine, RefusesMoreAnswersThanCanRunTogether) {
  auto engine = make_engine();
  Request r = request({1, 2, 3}, 4);
  r.sampling.n = 9;
  const auto refused = engine->submit(r);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("n is 9, but max_num_seqs is 8"), std::string::npos);
  r.sampling.n = 0;
  EXPECT_NE(engine->submit(r).status().message().find("n must be >= 1, got 0"), std::string::npos);
  r.sampling.n = 8;
  r.sampling.max_tokens = 120;
  EXPECT_NE(engine->submit(r).status().message().find("n = 8 times"), std::string::npos);
}

TEST(Engine, TasksRunBetweenStepsAndAreBounded) {
  EngineConfig config = engine_config();
  config.max_num_queued_reqs = 2;
  auto runner = std::make_unique<GatedRunner>(runner_info());
  const auto gate = runner->gate;
  auto engine = make_engine(std::move(runner), config);
  TokenStream stream = engine->submit(request({1, 2}, 4)).value();
  while (engine->stats().num_waiting == 0) std::this_thread::sleep_for(milliseconds(1));
  std::atomic<int> num_run{0};  // the engine waits at the gate, in a step
  const auto task = [&] { ++num_run; };
  EXPECT_TRUE(engine->run_between_steps(task).ok());
  EXPECT_TRUE(engine->run_between_steps(task).ok());
  const Status refused = engine->run_between_steps(task);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("2 tasks"), std::string::npos) << refused.message();
  EXPECT_EQ(num_run, 0);
  gate->update([](int& open) { open = 100; });
  read_all(stream);
  EXPECT_EQ(num_run, 2);
  EXPECT_TRUE(engine->run_between_steps(task).ok());
  engine.reset();
  EXPECT_EQ(num_run, 3);
}

TEST(Engine, WhatPrepareMakesOfEachMessageComesWithIt) {
  auto engine = make_engine();
  Request r = request({1, 2, 3}, 20);
  r.prepare = [](TokenDelta& delta) -> std::any { return std::exchange(delta.tokens, {}); };
  TokenStream stream = engine->submit(r).value();
  std::vector<int32_t> tokens;
  while (std::optional<TokenDelta> delta = stream.next()) {
    EXPECT_TRUE(delta->tokens.empty());
    for (const std::any& prepared : delta->prepared) {
      const auto& part = std::any_cast<const std::vector<int32_t>&>(prepared);
      tokens.insert(tokens.end(), part.begin(), part.end());
    }
  }
  EXPECT_EQ(tokens, expected({1, 2, 3}, 20));
}

}  // namespace
}  // namespace quire
