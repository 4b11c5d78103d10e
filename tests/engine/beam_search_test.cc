#include "engine/beam_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/hash.h"
#include "simulation/beam_reference.h"

namespace quire {
namespace {

constexpr int32_t kEndToken = 9;

// The likeliest next tokens after each text; elsewhere nothing goes on.
using Grammar = std::map<std::vector<int32_t>, std::vector<BeamCandidate>>;

std::vector<BeamSearch::Hypothesis> search(const BeamRules& rules,
                                           const Grammar& grammar,
                                           int* num_steps = nullptr) {
  BeamSearch search(rules);
  int steps = 0;
  for (; !search.is_over(); ++steps) {
    std::vector<std::span<const BeamCandidate>> candidates;
    for (const BeamSearch::Beam& beam : search.beams()) {
      candidates.push_back(grammar.at(beam.tokens));
    }
    search.advance(candidates);
  }
  if (num_steps != nullptr) *num_steps = steps;
  return {search.hypotheses().begin(), search.hypotheses().end()};
}

BeamRules rules(int width, int max_output) {
  BeamRules r;
  r.width = width;
  r.max_output = max_output;
  r.end_tokens = {kEndToken};
  return r;
}

TEST(BeamSearchTest, FindsASequenceThatBeginsWithALessLikelyToken) {
  const Grammar grammar = {
      {{}, {{1, -0.5}, {2, -1.0}}}, {{1}, {{3, -2.0}, {4, -3.0}}}, {{2}, {{5, -0.1}, {6, -4.0}}}};
  const auto found = search(rules(2, 2), grammar);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].tokens, (std::vector<int32_t>{2, 5}));
  EXPECT_DOUBLE_EQ(found[0].score, -1.1 / 2);
  EXPECT_EQ(found[0].reason, FinishReason::kLength);
  EXPECT_EQ(found[1].tokens, (std::vector<int32_t>{1, 3}));
}

TEST(BeamSearchTest, AnEndBeyondTheBestWidthContinuationsIsForgotten) {
  const Grammar grammar = {{{}, {{1, -0.5}, {2, -0.6}, {kEndToken, -0.7}}},
                           {{1}, {{3, -5.0}, {4, -6.0}, {kEndToken, -9.0}}},
                           {{2}, {{3, -5.0}, {4, -6.0}, {kEndToken, -9.0}}}};
  for (const auto& found : search(rules(2, 2), grammar)) EXPECT_EQ(found.tokens.size(), 2u);
}

TEST(BeamSearchTest, AnEndedBeamLeavesItsPlaceToTheNextBest) {
  BeamSearch search(rules(2, 5));
  const std::vector<BeamCandidate> first = {{kEndToken, -0.1}, {1, -0.2}, {2, -0.3}};
  const auto next = search.advance(std::vector<std::span<const BeamCandidate>>{first});
  ASSERT_EQ(next.size(), 2u);
  EXPECT_EQ(next[0].token, 1);
  EXPECT_EQ(next[1].token, 2);
  ASSERT_EQ(search.hypotheses().size(), 1u);
  EXPECT_EQ(search.hypotheses()[0].reason, FinishReason::kStop);
  EXPECT_FALSE(search.is_over());
}

TEST(BeamSearchTest, TheLengthPenaltyDecidesBetweenShortAndLong) {
  const Grammar grammar = {{{}, {{kEndToken, -1.0}, {1, -0.9}}}, {{1}, {{2, -0.5}, {3, -7.0}}}};
  BeamRules r = rules(2, 2);
  r.length_penalty = 1;
  EXPECT_EQ(search(r, grammar)[0].tokens, (std::vector<int32_t>{1, 2}));  // -1.4 / 2 > -1
  r.length_penalty = 0;
  EXPECT_EQ(search(r, grammar)[0].tokens, (std::vector<int32_t>{kEndToken}));
}

// Two short hypotheses at once; the running beam could become better later.
TEST(BeamSearchTest, EarlyStoppingDecidesHowLongBetterOnesAreLookedFor) {
  const Grammar grammar = {
      {{}, {{1, -1.0}, {2, -1.1}, {kEndToken, -9.0}}},
      {{1}, {{kEndToken, -0.5}, {3, -2.0}, {4, -8.0}}},
      {{2}, {{kEndToken, -0.5}, {3, -8.0}, {4, -9.0}}},
      {{1, 3}, {{3, -0.01}, {4, -9.0}, {5, -9.1}}},
      {{2, 3}, {{3, -9.0}, {4, -9.1}, {5, -9.2}}},
      {{1, 4}, {{3, -9.0}, {4, -9.1}, {5, -9.2}}},
      {{1, 3, 3}, {{kEndToken, -0.01}, {4, -9.0}, {5, -9.2}}},
      {{1, 3, 4}, {{kEndToken, -9.0}, {4, -9.1}, {5, -9.2}}},
      {{1, 3, 5}, {{kEndToken, -9.0}, {4, -9.1}, {5, -9.2}}},
  };
  const auto steps = [&](EarlyStopping rule) {
    BeamRules r = rules(2, 4);
    r.early_stopping = rule;
    int num_steps = 0;
    search(r, grammar, &num_steps);
    return num_steps;
  };
  EXPECT_EQ(steps(EarlyStopping::kTrue), 2);
  EXPECT_EQ(steps(EarlyStopping::kFalse), 2);  // -3.0 / 2 is no better than -1.6 / 2
  EXPECT_EQ(steps(EarlyStopping::kNever), 4);  // -3.0 / 4 is
}

TEST(BeamSearchTest, AnEndTokenBeforeMinTokensEndsNothing) {
  BeamRules r = rules(1, 3);
  r.min_tokens = 2;
  const Grammar grammar = {{{}, {{kEndToken, -0.1}, {1, -5.0}}},
                           {{kEndToken}, {{kEndToken, -0.1}, {1, -5.0}}}};
  r.early_stopping = EarlyStopping::kTrue;
  EXPECT_EQ(search(r, grammar)[0].tokens, (std::vector<int32_t>{kEndToken, kEndToken}));
}

TEST(BeamSearchTest, EndsWithFewerAnswersWhereTooFewTokensAreAllowed) {
  const Grammar grammar = {{{}, {{kEndToken, -0.1}}}};
  const auto found = search(rules(3, 4), grammar);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].tokens, (std::vector<int32_t>{kEndToken}));
}

TEST(BeamSearchTest, IsTheReferenceForRandomModelsAndRules) {
  constexpr int kVocab = 12, kCount = 4000;
  constexpr double kPenalties[] = {1, 0, 0.6, 1.4, -0.5, 3};
  constexpr EarlyStopping kStopping[] = {
      EarlyStopping::kTrue, EarlyStopping::kFalse, EarlyStopping::kNever};
  int num_stopped = 0, num_short = 0;
  for (uint64_t seed = 0; seed < kCount; ++seed) {
    uint64_t state = mix64(seed);
    const auto below = [&](int n) { return static_cast<int>((state = mix64(state + 1)) % n); };
    BeamRules r = rules(1 + below(6), 1 + below(12));
    r.length_penalty = kPenalties[below(6)];
    r.early_stopping = kStopping[below(3)];
    r.min_tokens = below(3) == 0 ? below(r.max_output + 1) : 0;
    for (int i = below(3); i > 0; --i) r.end_tokens.push_back(below(kVocab));
    r.end_tokens = sorted_once(r.end_tokens);
    const auto logprobs = [&](const std::vector<int32_t>& tokens) {
      std::vector<double> values(kVocab);
      for (int t = 0; t < kVocab; ++t) {
        values[t] = -3 * std::ldexp(double(hash_combine(hash_tokens(seed, tokens), t) >> 11), -53);
      }
      return values;
    };
    BeamSearch search(r);
    std::vector<std::vector<BeamCandidate>> lists(r.width);
    while (!search.is_over()) {
      std::vector<std::span<const BeamCandidate>> candidates;
      for (size_t b = 0; b < search.beams().size(); ++b) {
        const std::vector<double> values = logprobs(search.beams()[b].tokens);
        lists[b].clear();
        for (int32_t t = 0; t < kVocab; ++t) lists[b].push_back({t, values[t]});
        std::ranges::sort(lists[b], std::greater<>(), &BeamCandidate::logprob);
        const int num_end_tokens = static_cast<int>(r.end_tokens.size());
        lists[b].resize(std::min(kVocab, num_beam_candidates(r.width, num_end_tokens)));
        candidates.emplace_back(lists[b]);
      }
      search.advance(candidates);
    }
    const std::vector<ReferenceAnswer> expected = reference_beam_search(r, logprobs);
    ASSERT_EQ(search.hypotheses().size(), expected.size()) << "seed " << seed;
    for (size_t i = 0; i < expected.size(); ++i) {
      const BeamSearch::Hypothesis& got = search.hypotheses()[i];
      ASSERT_EQ(got.tokens, expected[i].tokens) << "seed " << seed << ", answer " << i;
      ASSERT_EQ(got.score, expected[i].score) << "seed " << seed << ", answer " << i;
      ASSERT_EQ(got.reason == FinishReason::kStop, expected[i].stopped) << "seed " << seed;
      num_stopped += expected[i].stopped;
      num_short += static_cast<int>(expected[i].tokens.size()) < r.max_output;
    }
  }
  EXPECT_GT(num_stopped, kCount);
  EXPECT_GT(num_short, kCount / 2);
}

}  // namespace
}  // namespace quire
