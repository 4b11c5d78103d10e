// String work on the engine's thread (async_tokenize off) gives the same answers as on others.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "frontend/llm.h"

namespace quire {
namespace {

std::unique_ptr<Llm> load(bool async_tokenize, EngineConfig engine = {}) {
  engine.kv_cache_memory_bytes = 4 << 20;
  engine.num_threads = 1;
  engine.block_size = 4;
  Result<std::unique_ptr<Llm>> llm = Llm::load({.model = QUIRE_TESTDATA "/golden/tiny/llama_gqa",
                                                .engine = engine,
                                                .async_tokenize = async_tokenize});
  EXPECT_TRUE(llm.ok()) << llm.status().message();
  return std::move(*llm);
}

GenerateRequest request(const std::string& text, int max_tokens) {
  GenerateRequest request;
  request.prompt = text;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  request.sampling.seed = 7;
  return request;
}

GenerateRequest sampled(int max_tokens, int n) {
  GenerateRequest r = request("hello", max_tokens);
  r.sampling.temperature = 1;
  r.sampling.n = n;
  return r;
}

// All deltas of each answer as one.
std::map<int, TextDelta> read_all(Result<TextStream> stream) {
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  std::map<int, TextDelta> answers;
  while (std::optional<TextDelta> delta = stream->next()) {
    const int index = delta->index;
    answers[index].append(std::move(*delta));
  }
  return answers;
}

std::vector<float> logprobs_of(const TextDelta& answer) {
  std::vector<float> all;
  for (const auto* lists : {&answer.logprobs, &answer.prompt_logprobs}) {
    for (const LogprobList& list : *lists) {
      for (const TokenLogprob& l : list) all.push_back(l.logprob);
    }
  }
  return all;
}

void expect_same(const std::map<int, TextDelta>& on, const std::map<int, TextDelta>& off) {
  ASSERT_EQ(on.size(), off.size());
  for (const auto& [index, a] : on) {
    ASSERT_TRUE(off.contains(index));
    const TextDelta& b = off.at(index);
    EXPECT_EQ(a.text, b.text);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.finish_reason, b.finish_reason);
    EXPECT_EQ(a.stop_string, b.stop_string);
    EXPECT_EQ(a.stop_token, b.stop_token);
    EXPECT_EQ(a.cumulative_logprob, b.cumulative_logprob);
    EXPECT_EQ(a.score, b.score);
    EXPECT_EQ(a.error.message(), b.error.message());
    EXPECT_EQ(logprobs_of(a), logprobs_of(b));
  }
}

class AsyncTokenize : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    on_ = load(true).release();
    off_ = load(false).release();
  }
  static void TearDownTestSuite() {
    delete on_;
    delete off_;
  }
  static std::map<int, TextDelta> expect_same_answers(const GenerateRequest& request) {
    const std::map<int, TextDelta> on = read_all(on_->submit(request));
    expect_same(on, read_all(off_->submit(request)));
    return on;
  }
  static Llm *on_, *off_;
};
Llm* AsyncTokenize::on_ = nullptr;
Llm* AsyncTokenize::off_ = nullptr;

TEST_F(AsyncTokenize, AnswersHaveTheSameTextTokensAndLogprobs) {
  const auto plain = expect_same_answers(request("hello world", 60));
  EXPECT_EQ(plain.at(0).tokens.size(), 60u);
  EXPECT_FALSE(plain.at(0).text.empty());
  GenerateRequest logprobs = request("hello world", 20);
  logprobs.sampling.logprobs = 3;
  logprobs.sampling.prompt_logprobs = 2;
  EXPECT_EQ(expect_same_answers(logprobs).at(0).logprobs.size(), 20u);
  GenerateRequest tokens = request("", 8);
  tokens.prompt = std::vector<TokenId>{5, 6, 7};
  expect_same_answers(tokens);
}

TEST_F(AsyncTokenize, SeveralAnswersTheBestOfThemAndBeamsAreTheSame) {
  EXPECT_EQ(expect_same_answers(sampled(30, 3)).size(), 3u);
  GenerateRequest best = sampled(12, 2);
  best.output.best_of = 5;
  EXPECT_EQ(expect_same_answers(best).size(), 2u);
  GenerateRequest beams = request("hello", 12);
  beams.sampling.seed.reset();
  beams.sampling.beam_width = 4;
  beams.sampling.n = 3;
  EXPECT_EQ(expect_same_answers(beams).size(), 3u);
}

TEST_F(AsyncTokenize, AStopStringEndsTheAnswerAtTheSamePlace) {
  const std::string whole = read_all(on_->submit(request("hello world", 200))).at(0).text;
  GenerateRequest stopped = request("hello world", 200);
  size_t at = 12;  // of a character
  while (at < whole.size() && (whole[at] & 0xC0) == 0x80) ++at;
  size_t end = at + 1;
  while (end < whole.size() && (whole[end] & 0xC0) == 0x80) ++end;
  stopped.output.stop = {whole.substr(at, end - at)};
  const auto answers = expect_same_answers(stopped);
  EXPECT_EQ(answers.at(0).finish_reason, FinishReason::kStop);
  EXPECT_EQ(answers.at(0).text, whole.substr(0, whole.find(stopped.output.stop[0])));
}

TEST_F(AsyncTokenize, WhatTheTokenizerOrTheEngineRefusesHasTheSameReason) {
  for (const std::string& text : {std::string("abc\xff"), std::string(100'000, 'x')}) {
    std::string messages[2];
    for (Llm* llm : {on_, off_}) {
      Result<TextStream> stream = llm->submit(request(text, 4));
      ASSERT_TRUE(stream.ok());
      messages[llm == on_] = stream->wait_admitted().message();
    }
    EXPECT_FALSE(messages[0].empty());
    EXPECT_EQ(messages[0], messages[1]);
  }
}

TEST_F(AsyncTokenize, ADroppedStreamCancelsBothBeforeItsPromptIsEncodedAndAfter) {
  for (int i = 0; i < 50; ++i) {
    Result<TextStream> stream = off_->submit(request("hello world", 200));
    ASSERT_TRUE(stream.ok());
    if (i % 3 == 0) stream->next();
    if (i % 3 == 1) stream->cancel();
  }
  read_all(off_->submit(request("last", 2)));
  EXPECT_EQ(off_->stats().num_used_blocks, 0);
  EXPECT_EQ(off_->stats().num_running, 0);
}

TEST(AsyncTokenizeOff, ReadersBesideEachOtherGetTheirOwnText) {
  const std::unique_ptr<Llm> off = load(false);
  const std::string expected = read_all(off->submit(request("hello world", 40))).at(0).text;
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      for (int round = 0; round < 5; ++round) {
        EXPECT_EQ(read_all(off->submit(request("hello world", 40))).at(0).text, expected);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

// The engine goes while prompts wait for it and answers are being made: every stream ends.
TEST(AsyncTokenizeOff, EveryStreamEndsWhenTheEngineStops) {
  for (int round = 0; round < 10; ++round) {
    std::unique_ptr<Llm> off = load(false);
    std::vector<TextStream> streams;
    for (int i = 0; i < 20; ++i) {
      Result<TextStream> stream = off->submit(request("hello world", 200));
      ASSERT_TRUE(stream.ok());
      streams.push_back(std::move(*stream));
    }
    if (round % 2 == 0) streams[0].next();
    off.reset();
    for (TextStream& stream : streams) {
      while (stream.next()) {
      }
      EXPECT_TRUE(stream.finished());
    }
  }
}

TEST(AsyncTokenizeOff, PromptsThatWaitAreBounded) {
  const std::unique_ptr<Llm> off = load(false, {.max_num_queued_reqs = 2});
  std::vector<TextStream> streams;
  Status refused;
  for (int i = 0; i < 100'000 && refused.ok(); ++i) {
    Result<TextStream> stream = off->submit(request(std::string(2000, 'x'), 4));
    refused = stream.status();
  }
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("--max-num-queued-reqs"), std::string::npos);
}

}  // namespace
}  // namespace quire
