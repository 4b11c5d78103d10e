#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/hash.h"
#include "base/philox.h"

namespace quire {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Roughly normal logits, the same everywhere.
std::vector<float> random_logits(uint64_t seed, int size, double spread = 3.0) {
  std::vector<float> logits(size);
  for (int i = 0; i < size; ++i) {
    double sum = 0;
    for (uint32_t j = 0; j < 4; ++j) sum += philox_uniform(seed, i, j);
    logits[i] = static_cast<float>((sum - 2) * spread);
  }
  return logits;
}

// The definition, in double precision and by sorting everything.
struct Reference {
  std::vector<int32_t> kept;        // increasing
  std::vector<double> probability;  // of kept
};

Reference reference_distribution(std::span<const float> logits, const SamplingParams& p) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return logits[a] > logits[b]; });
  const double max = logits[order[0]];
  std::vector<std::pair<int32_t, double>> kept;  // token, weight; most likely first
  for (size_t i = 0; i < order.size(); ++i) {
    const double scaled = (logits[order[i]] - max) / p.temperature;
    if (scaled < -87) break;  // a weight that is 0 in f32
    if (p.min_p > 0 && scaled < std::log(p.min_p)) break;
    const bool beyond_k = p.top_k > 0 && static_cast<int>(i) >= p.top_k;
    if (beyond_k && logits[order[i]] < logits[order[p.top_k - 1]]) break;
    kept.emplace_back(order[i], std::exp(scaled));
  }
  double sum = 0;
  for (const auto& [token, weight] : kept) sum += weight;
  if (p.top_p < 1) {
    double reached = 0;
    size_t count = 0;
    while (count < kept.size() && reached < p.top_p * sum) reached += kept[count++].second;
    kept.resize(count);
    sum = reached;
  }
  std::ranges::sort(kept);
  Reference result;
  for (const auto& [token, weight] : kept) {
    result.kept.push_back(token);
    result.probability.push_back(weight / sum);
  }
  return result;
}

Reference kept_by_sampler(std::span<const float> logits, const SamplingParams& p) {
  SamplerScratch scratch;
  keep_tokens(logits, p, &scratch);
  Reference result;
  double sum = 0;
  for (float weight : scratch.weights) sum += weight;
  for (size_t i = 0; i < scratch.kept.size(); ++i) {
    if (scratch.weights[i] == 0) continue;
    result.kept.push_back(scratch.kept[i]);
    result.probability.push_back(scratch.weights[i] / sum);
  }
  return result;
}

void expect_same(std::span<const float> logits, const SamplingParams& p, const std::string& name) {
  const Reference expected = reference_distribution(logits, p);
  const Reference got = kept_by_sampler(logits, p);
  ASSERT_EQ(got.kept, expected.kept) << name;
  for (size_t i = 0; i < got.kept.size(); ++i) {
    ASSERT_NEAR(got.probability[i], expected.probability[i], 1e-6 * expected.probability[i] + 1e-12)
        << name;
  }
}

TEST(Sampler, KeepsTheTokensOfTheDoublePrecisionDefinition) {
  int num_cases = 0;
  for (int size : {1, 2, 17, 1000, 5000}) {
    for (double spread : {0.01, 1.0, 8.0}) {
      const std::vector<float> logits = random_logits(size + spread * 100, size, spread);
      for (double temperature : {0.3, 1.0, 2.5}) {
        for (int top_k : {-1, 0, 1, 7, 40, 900, 10000}) {
          for (double top_p : {1.0, 0.95, 0.5, 0.01}) {
            for (double min_p : {0.0, 0.05, 1.0}) {
              SamplingParams p;
              p.temperature = temperature;
              p.top_k = top_k;
              p.top_p = top_p;
              p.min_p = min_p;
              expect_same(logits,
                          p,
                          "V " + std::to_string(size) + " spread " + std::to_string(spread) +
                              " T " + std::to_string(temperature) + " k " + std::to_string(top_k) +
                              " p " + std::to_string(top_p) + " min_p " + std::to_string(min_p));
              if (HasFatalFailure()) return;
              ++num_cases;
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(num_cases, 5 * 3 * 3 * 7 * 4 * 3);
}

TEST(Sampler, TiesStayWithTopKAndTheLowerIdWinsWithTopP) {
  const std::vector<float> logits = {1, 3, 3, 3, 0};
  SamplingParams p;
  p.top_k = 2;
  EXPECT_EQ(kept_by_sampler(logits, p).kept, (std::vector<int32_t>{1, 2, 3}));
  p.top_k = 0;
  p.top_p = 0.5;
  EXPECT_EQ(kept_by_sampler(logits, p).kept, (std::vector<int32_t>{1, 2}));
  const std::vector<float> flat(4000, 0.5f);
  expect_same(flat, p, "flat");
}

TEST(Sampler, MaskedAndNanLogitsAreNeverKept) {
  const std::vector<float> logits = {-kInf, 1, std::nanf(""), 0.5, -kInf};
  SamplingParams p;
  EXPECT_EQ(kept_by_sampler(logits, p).kept, (std::vector<int32_t>{1, 3}));
  p.top_k = 4;
  EXPECT_EQ(kept_by_sampler(logits, p).kept, (std::vector<int32_t>{1, 3}));
  const std::vector<float> none = {-kInf, -kInf, std::nanf("")};
  EXPECT_TRUE(kept_by_sampler(none, p).kept.empty());
}

// ---- One sequence through Sampler

NewSequence sequence(SamplingParams sampling, std::vector<int32_t> tokens, int num_prompt) {
  if (!sampling.seed) sampling.seed = 1;
  return {0, 0, std::move(sampling), {2}, std::move(tokens), num_prompt};
}

struct One {
  One(SamplingParams p, std::vector<int32_t> tokens, int num_prompt, int vocab_size)
      : sampler(1, vocab_size) {
    sampler.add(sequence(std::move(p), std::move(tokens), num_prompt));
  }
  int32_t sample(int position, std::span<const float> logits) {
    return sampler.sample(0, position, logits, &scratch, &logprobs);
  }
  Sampler sampler;
  SamplerScratch scratch;
  LogprobList logprobs;
};

SamplingParams greedy() {
  SamplingParams p;
  p.temperature = 0;
  return p;
}

TEST(Sampler, GreedyTakesTheMaximumAndTheLowestIdAmongEquals) {
  std::vector<float> logits = random_logits(3, 3000);
  logits[1999] = logits[2500] = 50;
  One one(greedy(), {1}, 1, 3000);
  EXPECT_EQ(one.sample(1, logits), 1999);
  EXPECT_EQ(one.sample(1, std::vector<float>(3000, -2.0f)), 0);
  EXPECT_EQ(one.sample(1, std::vector<float>(3000, -kInf)), kInvalidToken);
  EXPECT_EQ(one.sample(1, std::vector<float>(3000, std::nanf(""))), kInvalidToken);
  logits[0] = kInf;
  EXPECT_EQ(one.sample(1, logits), kInvalidToken);
}

TEST(Sampler, TemperatureBelowEpsilonIsGreedy) {
  const std::vector<float> logits = random_logits(4, 100);
  SamplingParams p;
  p.temperature = 0.9e-5;
  const auto best = std::ranges::max_element(logits) - logits.begin();
  EXPECT_EQ(One(p, {1}, 1, 100).sample(1, logits), best);
}

TEST(Sampler, AllowedBannedAndBiasedTokens) {
  const std::vector<float> logits = {5, 4, 3, 2, 1};
  SamplingParams p = greedy();
  p.allowed_token_ids = {3, 2, 3};
  EXPECT_EQ(One(p, {1}, 1, 5).sample(1, logits), 2);
  p.banned_token_ids = {2};
  EXPECT_EQ(One(p, {1}, 1, 5).sample(1, logits), 3);
  p = greedy();
  p.logit_bias = {{4, 4.5f}, {0, -1.0f}};
  EXPECT_EQ(One(p, {1}, 1, 5).sample(1, logits), 4);
  p.allowed_token_ids = {1};
  p.logit_bias = {{4, 100.0f}};  // a bias cannot bring back what is not allowed
  EXPECT_EQ(One(p, {1}, 1, 5).sample(1, logits), 1);
}

TEST(Sampler, MinTokensHoldsBackTheEndTokensUntilEnoughOutput) {
  const std::vector<float> logits = {0, 1, 9, 0, 0};  // token 2 ends
  SamplingParams p = greedy();
  p.min_tokens = 2;
  One one(p, {4, 4, 4}, 3, 5);
  EXPECT_EQ(one.sample(3, logits), 1);
  EXPECT_EQ(one.sample(4, logits), 1);
  EXPECT_EQ(one.sample(5, logits), 2);
}

TEST(Sampler, PenaltiesFollowTheirDefinitions) {
  // Tokens 0 and 1 in the prompt; 1, 2, 2 in the output.
  const std::vector<float> logits = {2.0f, -1.0f, 3.0f, 0.5f};
  SamplingParams p;
  p.repetition_penalty = 1.5;
  p.presence_penalty = 0.25;
  p.frequency_penalty = 0.5;
  p.temperature = 1.0;
  const std::vector<double> expected = {
      2.0 / 1.5, -1.0 * 1.5 - 0.5 - 0.25, 3.0 / 1.5 - 2 * 0.5 - 0.25, 0.5};
  One one(p, {0, 1, 1, 2, 2}, 2, 4);
  one.sample(5, logits);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(one.scratch.logits[i], expected[i], 1e-6) << i;
}

TEST(Sampler, CountsAfterAPreemptionEqualCountsKeptIncrementally) {
  SamplingParams p;
  p.frequency_penalty = 0.8;
  p.repetition_penalty = 1.2;
  p.seed = 5;
  One kept(p, {1, 2}, 2, 40);
  std::vector<int32_t> tokens = {1, 2};
  for (int position = 2; position < 60; ++position) {
    const std::vector<float> logits = random_logits(position, 40, 1.0);
    One rebuilt(p, tokens, 2, 40);
    const int32_t token = kept.sample(position, logits);
    ASSERT_EQ(rebuilt.sample(position, logits), token);
    ASSERT_EQ(rebuilt.scratch.logits, kept.scratch.logits);
    tokens.push_back(token);
  }
}

TEST(Sampler, ADrawDependsOnSeedAndPositionOnly) {
  const std::vector<float> logits = random_logits(9, 1000);
  SamplingParams p;
  p.seed = 77;
  One a(p, {1, 2, 3}, 3, 1000);
  const int32_t at_3 = a.sample(3, logits), at_4 = a.sample(4, logits);
  One b(p, {1, 2, 3, 9}, 3, 1000);  // resumed elsewhere
  EXPECT_EQ(b.sample(4, logits), at_4);
  EXPECT_EQ(b.sample(3, logits), at_3);
  int same_position = 0, same_seed = 0;
  for (int i = 0; i < 50; ++i) {
    p.seed = 1000 + i;
    same_position += One(p, {1}, 1, 1000).sample(3, logits) == at_3;
    same_seed += a.sample(100 + i, logits) == at_3;
  }
  EXPECT_LT(same_position, 10);
  EXPECT_LT(same_seed, 10);
}

// Chi-square of draws at many positions against the reference probabilities.
void expect_distribution(const SamplingParams& base, double critical) {
  constexpr int kDraws = 40000;
  const std::vector<float> logits = random_logits(21, 24, 2.0);
  const Reference reference = reference_distribution(logits, base);
  SamplingParams p = base;
  p.seed = 20240501;
  One one(p, {1}, 1, 24);
  std::map<int32_t, int> counts;
  for (int i = 0; i < kDraws; ++i) ++counts[one.sample(1 + i, logits)];
  double chi_square = 0;
  int drawn = 0;
  for (size_t i = 0; i < reference.kept.size(); ++i) {
    const double expected = reference.probability[i] * kDraws;
    const double difference = counts[reference.kept[i]] - expected;
    chi_square += difference * difference / expected;
    drawn += counts[reference.kept[i]];
  }
  EXPECT_EQ(drawn, kDraws);
  EXPECT_LT(chi_square, critical) << reference.kept.size() << " kept tokens";
}

TEST(Sampler, DrawsFollowTheDistribution) {
  SamplingParams p;
  expect_distribution(p, 49.7);  // 23 degrees of freedom, p = 0.001
  p.temperature = 1.7;
  p.top_p = 0.9;
  expect_distribution(p, 49.7);
  p.top_p = 1;
  p.top_k = 5;
  expect_distribution(p, 18.5);  // 4 degrees of freedom
  p.top_k = 0;
  p.min_p = 0.1;
  p.temperature = 0.8;
  expect_distribution(p, 49.7);
}

TEST(Sampler, LogprobsAreOfTheRawLogitsWithRanksAndAlternatives) {
  const std::vector<float> logits = {1, 4, 2, 4, 3};
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit);
  SamplingParams p = greedy();
  p.logprobs = 3;
  p.temperature = 0;
  p.logit_bias = {{0, 50.0f}};  // changes the choice, not the logprobs
  One one(p, {1}, 1, 5);
  ASSERT_EQ(one.sample(1, logits), 0);
  const std::vector<std::pair<int, int>> expected = {{0, 5}, {1, 1}, {3, 2}, {4, 3}};
  ASSERT_EQ(one.logprobs.size(), 4u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(one.logprobs[i].token, expected[i].first);
    EXPECT_EQ(one.logprobs[i].rank, expected[i].second);
    EXPECT_NEAR(one.logprobs[i].logprob, logits[expected[i].first] - std::log(sum), 1e-6);
  }
}

TEST(LogitMath, SelectionEqualsSorting) {
  SelectScratch scratch;
  std::vector<TokenLogit> top;
  for (int size : {1, 2, 100, 3333}) {
    std::vector<float> logits = random_logits(size, size);
    if (size > 3) logits[1] = -0.0f, logits[2] = 0.0f, logits[3] = -kInf;
    for (int i = 0; i + 7 < size; i += 7) logits[i] = logits[i + 7];
    std::vector<float> sorted = logits;
    std::ranges::sort(sorted, std::greater<>());
    for (int k : {1, 2, size / 2, size - 1, size}) {
      if (k < 1 || k > size) continue;
      EXPECT_EQ(kth_largest(logits, k, &scratch), sorted[k - 1]) << size << " " << k;
      top_k(logits, k, &scratch, &top);
      ASSERT_EQ(top.size(), static_cast<size_t>(k));
      for (int i = 0; i < k; ++i) EXPECT_EQ(top[i].logit, sorted[i]);
      for (int i = 1; i < k; ++i) {
        EXPECT_TRUE(top[i - 1].logit != top[i].logit || top[i - 1].token < top[i].token);
      }
    }
  }
}

TEST(LogitMath, ExpIsAccurateToAboutAnUlp) {
  for (float x = 0; x > -87; x -= 0.00731f) {
    const float got[1] = {x};
    float weight[1];
    exp_weights(got, 0.0f, 1.0f, weight);
    ASSERT_NEAR(weight[0] / std::exp(static_cast<double>(x)), 1.0, 3e-7) << x;
  }
  std::vector<float> weights(2);
  EXPECT_EQ(exp_weights(std::vector<float>{-200.0f, -kInf}, 0.0f, 1.0f, weights), 0.0);
}

TEST(SamplingParams, ValidateNamesTheValueAndTheRange) {
  const auto message = [](auto change) {
    SamplingParams p;
    change(p);
    return p.validate(100, 20).message();
  };
  EXPECT_EQ(message([](SamplingParams&) {}), "");
  EXPECT_EQ(message([](SamplingParams& p) { p.temperature = -0.5; }),
            "temperature must be a finite number >= 0 (0 = greedy), got -0.5");
  EXPECT_EQ(message([](SamplingParams& p) { p.temperature = NAN; }).substr(0, 11), "temperature");
  EXPECT_EQ(message([](SamplingParams& p) { p.top_p = 0; }), "top_p must be in (0, 1], got 0");
  EXPECT_EQ(message([](SamplingParams& p) { p.top_k = -2; }),
            "top_k must be >= 1, or 0 or -1 to turn it off, got -2");
  EXPECT_EQ(message([](SamplingParams& p) { p.min_p = 1.01; }),
            "min_p must be in [0, 1], got 1.01");
  EXPECT_EQ(message([](SamplingParams& p) { p.repetition_penalty = 0; }),
            "repetition_penalty must be > 0 (1 = none), got 0");
  EXPECT_EQ(message([](SamplingParams& p) { p.presence_penalty = 3; }),
            "presence_penalty must be in [-2, 2], got 3");
  EXPECT_EQ(message([](SamplingParams& p) { p.frequency_penalty = -3; }),
            "frequency_penalty must be in [-2, 2], got -3");
  EXPECT_EQ(message([](SamplingParams& p) { p.max_tokens = -1; }),
            "max_tokens must be >= 0, got -1");
  EXPECT_EQ(message([](SamplingParams& p) { p.min_tokens = 17; }),
            "min_tokens must be <= max_tokens, which is 16, got 17");
  EXPECT_EQ(message([](SamplingParams& p) { p.stop_token_ids = {100}; }),
            "stop_token_ids must be token ids in [0, 100), the vocabulary, got 100");
  EXPECT_EQ(message([](SamplingParams& p) { p.logit_bias = {{-1, 0.0f}}; }).substr(0, 10),
            "logit_bias");
  EXPECT_EQ(message([](SamplingParams& p) { p.logit_bias = {{1, 101.0f}}; }),
            "logit_bias must be in [-100, 100], got 101");
  EXPECT_EQ(message([](SamplingParams& p) { p.logprobs = 21; }),
            "logprobs must be in [0, 20] (--max-logprobs raises the limit), got 21");
}

}  // namespace
}  // namespace quire
