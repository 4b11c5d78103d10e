// Beam search through sampler, scheduler and engine thread; the search itself is
// beam_search_test's.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "base/hash.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/scheduler_harness.h"
#include "simulation/beam_checks.h"
#include "simulation/beam_reference.h"
#include "simulation/fake_model_runner.h"

namespace quire {
namespace {

constexpr int kVocab = 50;
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<BeamCandidate> candidates(const SamplingParams& sampling,
                                      const std::vector<float>& logits,
                                      int position = 1) {
  const int vocab = static_cast<int>(logits.size());
  Sampler sampler(1, vocab);
  sampler.add({0, 0, sampling, {2, 0, 2}, {1}, 1});
  SamplerScratch scratch;
  std::vector<BeamCandidate> list;
  sampler.beam_candidates(0, position, logits, &scratch, &list);
  return list;
}

TEST(BeamCandidates, AreTheLikeliestTokensWithTheirLogSoftmax) {
  const std::vector<float> logits = {1, 4, 2, 3, -1, 0};
  double sum = 0;
  for (float logit : logits) sum += std::exp(double{logit});
  const auto list = candidates({.beam_width = 2}, logits);  // and one for each of 2 end tokens
  ASSERT_EQ(list.size(), 4u);
  const int32_t expected[] = {1, 3, 2, 0};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(list[i].token, expected[i]);
    EXPECT_NEAR(list[i].logprob, logits[expected[i]] - std::log(sum), 1e-6);
  }
  EXPECT_EQ(candidates({.beam_width = 9}, logits).size(), logits.size());
}

TEST(BeamCandidates, BansDoNotChangeTheLogprobsOfTheOthers) {
  const std::vector<float> logits = {1, 4, 2, 3, -1, 0};
  const auto all = candidates({.beam_width = 4}, logits);
  SamplingParams banning{.banned_token_ids = {1}, .min_tokens = 2, .beam_width = 4};
  const auto before = candidates(banning, logits), after = candidates(banning, logits, 3);
  ASSERT_EQ(before.size(), 3u);  // neither the banned one nor end tokens 0 and 2
  EXPECT_EQ(before[0].token, 3);
  EXPECT_EQ(before[0].logprob, all[1].logprob);
  EXPECT_EQ(after[1].token, 2);
}

TEST(BeamCandidates, OfLogitsThatAreNotFiniteThereAreNone) {
  EXPECT_TRUE(candidates({.beam_width = 2}, {NAN, NAN, NAN}).empty());
  EXPECT_TRUE(candidates({.beam_width = 2}, {1, kInf, 2}).empty());
  EXPECT_TRUE(
      candidates({.allowed_token_ids = {0}, .banned_token_ids = {0}, .beam_width = 2}, {1, 2, 3})
          .empty());
  EXPECT_EQ(candidates({.beam_width = 2}, {1, -kInf, 2}).size(), 2u);
}

TEST(BeamParams, ValidateRefusesWhatIsOutOfRangeOrHasNoEffect) {
  const auto message = [](auto change) {
    SamplingParams p;
    p.beam_width = 4;
    change(p);
    return p.validate(100).message();
  };
  EXPECT_EQ(message([](SamplingParams&) {}), "");
  EXPECT_EQ(message([](SamplingParams& p) { p.temperature = 0; }), "");
  EXPECT_EQ(message([](SamplingParams& p) { p.n = 4; }), "");
  EXPECT_EQ(message([](SamplingParams& p) { p.beam_width = -1; }),
            "beam_width must be >= 1, or 0 for none, got -1");
  EXPECT_EQ(message([](SamplingParams& p) { p.n = 5; }),
            "n must be <= beam_width, which is 4, got 5");
  EXPECT_EQ(message([](SamplingParams& p) { p.max_tokens = 0; }),
            "beam_width must be 0 with max_tokens 0, which gives no answer, got 4");
  EXPECT_EQ(message([](SamplingParams& p) { p.length_penalty = 11; }),
            "length_penalty must be in [-10, 10] (1 = the mean), got 11");
  EXPECT_EQ(message([](SamplingParams& p) { p.length_penalty = NAN; }).substr(0, 22),
            "length_penalty must be");
  EXPECT_EQ(message([](SamplingParams& p) { p.temperature = 0.7; }),
            "temperature is 0.7, which beam search has no use for: leave it at 0 or 1, or turn off "
            "beam_width");
  EXPECT_EQ(message([](SamplingParams& p) { p.seed = 12345678901; }).substr(0, 19),
            "seed is 12345678901");
  EXPECT_EQ(message([](SamplingParams& p) { p.top_k = 5; }).substr(0, 10), "top_k is 5");
  EXPECT_EQ(message([](SamplingParams& p) { p.top_p = 0.5; }).substr(0, 12), "top_p is 0.5");
  EXPECT_EQ(message([](SamplingParams& p) { p.min_p = 0.5; }).substr(0, 12), "min_p is 0.5");
  EXPECT_EQ(message([](SamplingParams& p) { p.repetition_penalty = 2; }).substr(0, 18),
            "repetition_penalty");
  EXPECT_EQ(message([](SamplingParams& p) { p.presence_penalty = 1; }).substr(0, 16),
            "presence_penalty");
  EXPECT_EQ(message([](SamplingParams& p) { p.frequency_penalty = 1; }).substr(0, 17),
            "frequency_penalty");
  EXPECT_EQ(message([](SamplingParams& p) { p.logprobs = 1; }).substr(0, 13), "logprobs is 1");
  EXPECT_EQ(message([](SamplingParams& p) { p.prompt_logprobs = 1; }).substr(0, 15),
            "prompt_logprobs");
  EXPECT_EQ(message([](SamplingParams& p) { p.beam_width = 0, p.length_penalty = 2; }),
            "length_penalty is 2, which only beam search uses: set beam_width as well");
  EXPECT_EQ(
      message([](SamplingParams& p) { p.beam_width = 0, p.early_stopping = EarlyStopping::kTrue; }),
      "early_stopping is set, which only beam search uses: set beam_width as well");
}

SequenceSpec beam_spec(int num_prompt, int max_tokens, int width, int n = 1) {
  SequenceSpec s;
  for (int i = 0; i < num_prompt; ++i) s.prompt.push_back(1 + i % (kVocab - 1));
  s.sampling.max_tokens = max_tokens;
  s.sampling.seed = fake_salt_seed("");
  s.sampling.beam_width = width;
  s.sampling.n = n;
  s.eos_token_ids = {0};
  return s;
}

std::vector<ReferenceAnswer> expected(const SequenceSpec& s, uint64_t seed) {
  BeamRules rules{s.sampling.beam_width, s.sampling.length_penalty, s.sampling.early_stopping};
  rules.max_output = s.sampling.max_tokens;
  rules.end_tokens = s.eos_token_ids;
  return reference_beam_search(rules, [&](const std::vector<int32_t>& output) {
    FakeHistory history(seed);
    for (int32_t token : s.prompt) history.append(token);
    for (int32_t token : output) history.append(token);
    return history.logprobs(kVocab);
  });
}

class BeamSchedulerTest : public SteppedScheduler {
 protected:
  BeamSchedulerTest() : SteppedScheduler(kVocab) {}
  std::vector<int> step() {
    std::vector<int> counts = SteppedScheduler::step();
    EXPECT_EQ(find_beam_inconsistency(*scheduler), "");
    return counts;
  }
};

TEST_F(BeamSchedulerTest, ComputesThePromptOnceAndThenAllBeamsAtOnce) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 8, .max_model_len = 64}, 32, 4);
  ASSERT_TRUE(scheduler->add(beam_spec(10, 6, 3)).ok());
  EXPECT_EQ(step(), (std::vector<int>{8}));
  EXPECT_EQ(step(), (std::vector<int>{2}));
  EXPECT_TRUE(committed.empty());
  EXPECT_EQ(scheduler->pool().num_used(), 3);  // of 10 tokens, shared by all three
  EXPECT_EQ(step(), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(scheduler->num_running(), 3);
}

TEST_F(BeamSchedulerTest, BeamsWithoutABudgetForAllOfThemWait) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 4, .max_model_len = 64}, 64, 4);
  ASSERT_TRUE(scheduler->add(beam_spec(3, 9, 3)).ok());
  EXPECT_EQ(step(), (std::vector<int>{3}));
  SequenceSpec other = beam_spec(9, 1, 0);
  other.prompt.assign(9, 7);
  ASSERT_TRUE(scheduler->add(other).ok());
  EXPECT_EQ(step(), (std::vector<int>{1, 1, 1, 1}));
  EXPECT_EQ(step(), (std::vector<int>{1, 1, 1, 1}));
}

TEST_F(BeamSchedulerTest, ADeadBeamsBlocksAreFreeInTheSameStep) {
  make({.max_num_seqs = 8,
        .max_num_batched_tokens = 64,
        .max_model_len = 64,
        .enable_prefix_caching = false},
       64,
       1);  // every token has a block of its own
  ASSERT_TRUE(scheduler->add(beam_spec(4, 12, 4)).ok());
  while (scheduler->has_work()) {
    step();
    std::vector<BlockId> held;
    for (const Sequence& seq : scheduler->sequences()) {
      held.insert(held.end(), seq.table.blocks().begin(), seq.table.blocks().end());
    }
    std::ranges::sort(held);
    held.erase(std::ranges::unique(held).begin(), held.end());
    EXPECT_EQ(scheduler->pool().num_used(), static_cast<int>(held.size()));
    for (const BeamGroup& group : scheduler->beam_groups()) {
      EXPECT_EQ(scheduler->num_running(), static_cast<int>(group.beams.size()));
    }
  }
  EXPECT_EQ(scheduler->pool().num_used(), 0);
}

TEST_F(BeamSchedulerTest, CancellingAnyMemberEndsTheSearch) {
  for (int victim = 0; victim < 3; ++victim) {
    for (int steps = 0; steps < 6; ++steps) {
      make({.max_num_seqs = 4, .max_num_batched_tokens = 8, .max_model_len = 64}, 32, 4);
      const SequenceId first = *scheduler->add(beam_spec(5, 20, 3));
      for (int i = 0; i < steps; ++i) step();
      scheduler->cancel(first + victim);
      EXPECT_FALSE(scheduler->has_work());
      EXPECT_EQ(scheduler->pool().num_used(), 0);
      EXPECT_TRUE(scheduler->beam_groups().empty());
    }
  }
}

TEST_F(BeamSchedulerTest, RefusesABeamWidthThatCannotRunTogether) {
  make({.max_num_seqs = 6, .max_num_batched_tokens = 4, .max_model_len = 64}, 8, 4);
  EXPECT_EQ(scheduler->limits().check(3, {.max_tokens = 2, .beam_width = 7}).message(),
            "beam_width is 7, but max_num_seqs is 6, and answers to one prompt run together: lower "
            "beam_width or raise --max-num-seqs");
  EXPECT_EQ(scheduler->limits().check(3, {.max_tokens = 2, .beam_width = 5}).message(),
            "beam_width is 5, but max_num_batched_tokens is 4, and all beams run in one step: "
            "lower beam_width or raise --max-num-batched-tokens");
  EXPECT_NE(scheduler->limits()
                .check(3, {.max_tokens = 10, .beam_width = 3})
                .message()
                .find("beam_width = 3 times, need 9 KV blocks, but the whole pool has 8"),
            std::string::npos);
  EXPECT_TRUE(scheduler->limits().check(3, {.max_tokens = 6, .beam_width = 4}).ok());
}

TEST_F(BeamSchedulerTest, IsAValue) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 8, .max_model_len = 64}, 32, 4);
  ASSERT_TRUE(scheduler->add(beam_spec(5, 20, 3)).ok());
  step();
  step();
  const Scheduler copy = *scheduler;
  EXPECT_EQ(copy, *scheduler);
  EXPECT_EQ(copy.state_hash(), scheduler->state_hash());
  step();
  EXPECT_NE(copy.state_hash(), scheduler->state_hash());
}

// Through the engine thread.

constexpr uint64_t kEngineSeed = 5;

std::unique_ptr<Engine> make_engine(int max_in_flight = 1, int64_t invalid_at_launch = -1) {
  RunnerInfo info;
  info.num_blocks = 64;
  info.block_size = 4;
  info.vocab_size = kVocab;
  info.max_model_len = 128;
  info.max_logit_rows = 24;
  info.max_in_flight = max_in_flight;
  info.eos_token_ids = {0};
  EngineConfig config;
  config.max_num_seqs = 8;
  config.max_num_batched_tokens = 16;
  config.seed = kEngineSeed;
  auto runner = std::make_unique<FakeModelRunner>(info);
  runner->invalid_at_launch = invalid_at_launch;
  return Engine::create(config, std::move(runner)).value();
}

Request beam_request(const SequenceSpec& spec) {
  Request r;
  r.prompt = spec.prompt;
  r.sampling = spec.sampling;
  r.sampling.seed.reset();
  return r;
}

TEST(BeamEngine, GivesTheBestAnswersInOrderWithTheirScores) {
  for (int max_in_flight : {1, 2}) {
    auto engine = make_engine(max_in_flight);
    const SequenceSpec spec = beam_spec(6, 12, 4, 3);
    auto stream = engine->submit(beam_request(spec)).value();
    const auto want = expected(spec, hash_combine(kEngineSeed, 0));
    std::vector<bool> seen(3, false);
    while (std::optional<TokenDelta> delta = stream.next()) {
      const ReferenceAnswer& answer = want[delta->index];
      EXPECT_EQ(delta->tokens, answer.tokens);
      EXPECT_EQ(delta->score, answer.score);
      EXPECT_EQ(delta->finish_reason, answer.stopped ? FinishReason::kStop : FinishReason::kLength);
      EXPECT_EQ(delta->stop_token.has_value(), answer.stopped);
      seen[delta->index] = true;
    }
    EXPECT_EQ(seen, std::vector<bool>(3, true));
    EXPECT_EQ(engine->stats().num_used_blocks, 0);
    EXPECT_EQ(engine->stats().num_prompt_tokens, 6);
  }
}

TEST(BeamEngine, LogitsThatAreNotFiniteEndEveryAnswerWithAnError) {
  auto engine = make_engine(1, 2);
  auto stream = engine->submit(beam_request(beam_spec(6, 12, 4, 2))).value();
  int count = 0;
  for (; std::optional<TokenDelta> delta = stream.next(); ++count) {
    EXPECT_EQ(delta->finish_reason, FinishReason::kError);
    EXPECT_NE(delta->error.message().find("not finite"), std::string::npos);
    EXPECT_TRUE(delta->tokens.empty());
  }
  EXPECT_EQ(count, 2);
}

TEST(BeamEngine, CancelsWithItsStream) {
  auto engine = make_engine();
  {
    auto stream = engine->submit(beam_request(beam_spec(6, 50, 4, 2))).value();
  }
  SequenceSpec spec = beam_spec(3, 4, 2);
  auto stream = engine->submit(beam_request(spec)).value();
  EXPECT_EQ(stream.next()->tokens, expected(spec, hash_combine(kEngineSeed, 1))[0].tokens);
  EXPECT_EQ(engine->stats().num_used_blocks, 0);
}

TEST(BeamEngine, RefusesALogitsTap) {
  auto engine = make_engine();
  Request r = beam_request(beam_spec(3, 4, 2));
  r.logits_tap = [](int, std::span<const float>) {};
  EXPECT_NE(engine->submit(r).status().message().find("beam_width is 2, but logits_tap"),
            std::string::npos);
}

}  // namespace
}  // namespace quire
