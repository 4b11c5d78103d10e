#include "engine/beam_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/mutants.h"

namespace quire {

namespace {

struct Continuation {
  double sum;
  int32_t beam, token;
};

std::vector<Continuation> in_order(std::span<const BeamSearch::Beam> beams,
                                   std::span<const std::span<const BeamCandidate>> candidates) {
  std::vector<Continuation> all;
  for (size_t b = 0; b < candidates.size(); ++b) {
    for (const BeamCandidate& candidate : candidates[b]) {
      all.push_back({beams[b].sum + candidate.logprob, static_cast<int32_t>(b), candidate.token});
    }
  }
  std::ranges::sort(all, [](const Continuation& a, const Continuation& b) {
    return std::tuple(-a.sum, a.beam, a.token) < std::tuple(-b.sum, b.beam, b.token);
  });
  return all;
}

}  // namespace

std::vector<int32_t> sorted_once(std::vector<int32_t> tokens) {
  std::ranges::sort(tokens);
  tokens.erase(std::ranges::unique(tokens).begin(), tokens.end());
  return tokens;
}

BeamSearch::BeamSearch(BeamRules rules) : rules_(std::move(rules)), beams_(1) {
  QUIRE_CHECK(rules_.width >= 1 && rules_.max_output >= 1);
}

std::vector<BeamSearch::Choice> BeamSearch::advance(
    std::span<const std::span<const BeamCandidate>> candidates) {
  QUIRE_CHECK(!is_over_ && candidates.size() == beams_.size());
  ++num_output_;
  const auto width = static_cast<size_t>(rules_.width);
  const bool is_last = num_output_ == rules_.max_output;
  std::vector<Beam> next;
  std::vector<Choice> choices;
  size_t rank = 0;
  for (const Continuation& c : in_order(beams_, candidates)) {
    const bool is_end =
        num_output_ >= rules_.min_tokens && std::ranges::binary_search(rules_.end_tokens, c.token);
    const bool is_among_best = rank++ < width || mutant("engine_beam_any_rank_may_finish");
    if (is_end || is_last) {
      if (is_among_best) finish(beams_[c.beam], c.token, c.sum, is_end);
    } else if (next.size() < width) {
      next.push_back({beams_[c.beam].tokens, c.sum});
      next.back().tokens.push_back(c.token);
      choices.push_back({c.beam, c.token});
    }
  }
  beams_ = std::move(next);
  is_over_ = beams_.empty() || (hypotheses_.size() == width && !may_improve());
  if (is_over_) choices.clear();
  return choices;
}

void BeamSearch::finish(const Beam& parent, int32_t token, double sum, bool is_end) {
  Hypothesis hypothesis{parent.tokens,
                        normalised(sum, num_output_),
                        is_end ? FinishReason::kStop : FinishReason::kLength};
  hypothesis.tokens.push_back(token);
  const auto place =
      std::ranges::upper_bound(hypotheses_, hypothesis.score, std::greater<>(), &Hypothesis::score);
  hypotheses_.insert(place, std::move(hypothesis));
  if (hypotheses_.size() > static_cast<size_t>(rules_.width)) hypotheses_.pop_back();
}

// Can a running beam still become better than the worst hypothesis?
bool BeamSearch::may_improve() const {
  if (rules_.early_stopping == EarlyStopping::kTrue) return false;
  const bool assumes_longest =
      rules_.early_stopping == EarlyStopping::kNever && rules_.length_penalty > 0;
  const int length =
      assumes_longest && !mutant("engine_beam_never_is_false") ? rules_.max_output : num_output_;
  return normalised(beams_.front().sum, length) > hypotheses_.back().score;
}

double BeamSearch::normalised(double sum, int length) const {
  return sum / std::pow(length, rules_.length_penalty);
}

uint64_t BeamSearch::state_hash() const {
  uint64_t h = hash_combine(num_output_, is_over_);
  for (const Beam& beam : beams_) {
    h = hash_combine(hash_tokens(h, beam.tokens), std::bit_cast<uint64_t>(beam.sum));
  }
  for (const Hypothesis& hypothesis : hypotheses_) {
    h = hash_combine(hash_tokens(h, hypothesis.tokens), std::bit_cast<uint64_t>(hypothesis.score));
  }
  return hash_combine(h, hypotheses_.size());
}

}  // namespace quire
