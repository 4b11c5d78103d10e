#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "base/hash.h"
#include "base/mutants.h"
#include "base/philox.h"

namespace quire {

namespace {

constexpr double kGreedyBelow = 1e-5;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

bool is_greedy(const SamplingParams& p) { return p.temperature < kGreedyBelow; }

}  // namespace

Sampler::Sampler(int max_num_seqs, int vocab_size)
    : vocab_size_(vocab_size), slots_(max_num_seqs) {}

void Sampler::add(const NewSequence& sequence) {
  Slot& slot = slots_[sequence.slot];
  slot.sampling = sequence.sampling;
  if (sequence.sample_index > 0) {
    slot.sampling.seed = hash_combine(*slot.sampling.seed, sequence.sample_index);
  }
  slot.end_tokens = sorted_once(sequence.end_tokens);
  slot.num_prompt = sequence.num_prompt;
  const SamplingParams& p = slot.sampling;
  slot.has_penalties =
      p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
  if (slot.has_penalties) slot.counts.reset(sequence.tokens, sequence.num_prompt);
}

int32_t Sampler::sample(int slot_index,
                        int position,
                        std::span<const float> raw_logits,
                        SamplerScratch* scratch,
                        LogprobList* logprobs) {
  Slot& slot = slots_[slot_index];
  const SamplingParams& p = slot.sampling;
  const int num_output = position - slot.num_prompt;
  std::span<const float> logits = raw_logits;
  if (changes_logits(slot, num_output)) {
    scratch->logits.assign(raw_logits.begin(), raw_logits.end());
    restrict_tokens(slot, num_output, scratch->logits);
    if (slot.has_penalties) penalise(slot, scratch->logits);
    logits = scratch->logits;
  }
  int32_t token = kInvalidToken;
  if (is_greedy(p)) {
    token = argmax(logits);
  } else {
    keep_tokens(logits, p, scratch);
    const uint64_t draw =
        mutant("engine_draw_ignores_position") ? 0 : static_cast<uint64_t>(position);
    double left = philox_uniform(*p.seed, draw) * scratch->total;
    for (size_t i = 0; i < scratch->kept.size(); ++i) {
      if (scratch->weights[i] == 0) continue;
      token = scratch->kept[i];
      left -= scratch->weights[i];
      if (left < 0) break;
    }
  }
  if (token == kInvalidToken) return token;
  if (slot.has_penalties) slot.counts.add_output(token);
  if (p.logprobs) *logprobs = logprobs_of(raw_logits, token, *p.logprobs, scratch);
  return token;
}

void Sampler::beam_candidates(int slot_index,
                              int position,
                              std::span<const float> logits,
                              SamplerScratch* scratch,
                              std::vector<BeamCandidate>* candidates) const {
  const Slot& slot = slots_[slot_index];
  const int num_output = position - slot.num_prompt;
  candidates->clear();
  const float max = max_logit(logits);
  if (!std::isfinite(max)) return;
  const double normaliser = mutant("engine_beam_unnormalised") ? 0 : log_sum_exp(logits, max);
  if (changes_logits(slot, num_output)) {
    scratch->logits.assign(logits.begin(), logits.end());
    restrict_tokens(slot, num_output, scratch->logits);
    logits = scratch->logits;
  }
  const int wanted =
      num_beam_candidates(slot.sampling.beam_width, static_cast<int>(slot.end_tokens.size()));
  top_k(logits, std::min(wanted, vocab_size_), &scratch->select, &scratch->top);
  for (const TokenLogit& top : scratch->top) {
    if (!std::isfinite(top.logit)) break;
    candidates->push_back({top.token, top.logit - normaliser});
  }
}

bool Sampler::changes_logits(const Slot& slot, int num_output) const {
  const SamplingParams& p = slot.sampling;
  return slot.has_penalties || num_output < p.min_tokens || !p.logit_bias.empty() ||
         !p.allowed_token_ids.empty() || !p.banned_token_ids.empty();
}

void Sampler::restrict_tokens(const Slot& slot, int num_output, std::span<float> logits) const {
  const SamplingParams& p = slot.sampling;
  if (!p.allowed_token_ids.empty()) {
    std::vector<float> allowed(p.allowed_token_ids.size());
    for (size_t i = 0; i < allowed.size(); ++i) allowed[i] = logits[p.allowed_token_ids[i]];
    std::ranges::fill(logits, kMinusInfinity);
    for (size_t i = 0; i < allowed.size(); ++i) logits[p.allowed_token_ids[i]] = allowed[i];
  }
  for (int32_t token : p.banned_token_ids) logits[token] = kMinusInfinity;
  if (num_output < p.min_tokens) {
    for (int32_t token : slot.end_tokens) {
      if (token >= 0 && token < vocab_size_) logits[token] = kMinusInfinity;
    }
  }
  for (const auto& [token, bias] : p.logit_bias) logits[token] += bias;
}

// Repetition: Keskar et al., arXiv:1909.05858, section 4.1, for prompt and output; frequency and
// presence for the output.
void Sampler::penalise(const Slot& slot, std::span<float> logits) const {
  const SamplingParams& p = slot.sampling;
  for (const TokenCounts::Entry& entry : slot.counts.entries()) {
    float& logit = logits[entry.token];
    const auto repetition = static_cast<float>(p.repetition_penalty);
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (entry.num_output == 0) continue;
    logit -= static_cast<float>(p.frequency_penalty * entry.num_output + p.presence_penalty);
  }
}

namespace {

// Orders places of scratch->kept by logit, largest first, lower ids first among equals.
bool more_likely(const SamplerScratch& s, int32_t a, int32_t b) {
  return s.kept_logits[a] != s.kept_logits[b] ? s.kept_logits[a] > s.kept_logits[b] : a < b;
}

// Keeps of scratch->border, in order of likelihood, as few as reach `wanted`, and drops the others:
// their weights become 0. Returns the weight kept. Selection by halves: linear, no sort.
double cut_border(double wanted, SamplerScratch* s) {
  auto& places = s->border;
  if (places.empty()) return 0;
  size_t low = 0, high = places.size();
  double reached = 0;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(places.begin() + low,
                     places.begin() + middle,
                     places.begin() + high,
                     [&](int32_t a, int32_t b) { return more_likely(*s, a, b); });
    double upper = 0;
    for (size_t i = low; i < middle; ++i) upper += s->weights[places[i]];
    if (reached + upper >= wanted) {
      high = middle;
    } else {
      reached += upper;
      low = middle;
    }
  }
  for (size_t i = low + 1; i < places.size(); ++i) s->weights[places[i]] = 0;
  return reached + s->weights[places[low]];
}

// Forgets the kept tokens that top_p drops for certain: n tokens of less than (1 - p) / n of the
// weight each have less than 1 - p of it together.
void forget_unlikely(double top_p, SamplerScratch* s) {
  const size_t count = s->kept.size();
  const auto least =
      static_cast<float>((1 - top_p) * s->total / static_cast<double>(count) * 0.999);
  size_t left = 0;
  for (size_t i = 0; i < count; ++i) {  // without branches: what is forgotten is overwritten
    const float weight = s->weights[i];
    s->kept[left] = s->kept[i];
    s->kept_logits[left] = s->kept_logits[i];
    s->weights[left] = weight;
    left += weight >= least;
  }
  s->kept.resize(left);
  s->kept_logits.resize(left);
  s->weights.resize(left);
}

// Puts each kept token into one of `num_bins` by its log probability, the most likely ones into
// bin 0.
void fill_bins(int num_bins, float max, float inverse_temperature, SamplerScratch* s) {
  constexpr float kWidest = 32;  // what is rarer shares the last bin
  const float range = std::min(kWidest, (max - min_logit(s->kept_logits)) * inverse_temperature);
  const float last = static_cast<float>(num_bins - 1);
  const float scale = range > 0 ? inverse_temperature * last / range : 0;
  const size_t count = s->kept.size();
  s->bins.resize(count);
  const float* logits = s->kept_logits.data();
  int32_t* bins = s->bins.data();
  for (size_t i = 0; i < count; ++i) {
    const float bin = (max - logits[i]) * scale;
    bins[i] = static_cast<int32_t>(bin < last ? bin : last);
  }
}

// Only the bin in which top_p is reached is looked at more closely.
void apply_top_p(double top_p, float max, float inverse_temperature, SamplerScratch* s) {
  constexpr int kBins = 1024;
  const double wanted = top_p * s->total;
  forget_unlikely(top_p, s);
  fill_bins(kBins, max, inverse_temperature, s);
  const size_t count = s->kept.size();
  double mass[kBins] = {};
  for (size_t i = 0; i < count; ++i) mass[s->bins[i]] += s->weights[i];
  double reached = 0;
  int border_bin = 0;
  while (border_bin < kBins - 1 && reached + mass[border_bin] < wanted) {
    reached += mass[border_bin++];
  }
  s->border.resize(count + 1);
  size_t num_border = 0;
  for (size_t i = 0; i < count; ++i) {
    s->border[num_border] = static_cast<int32_t>(i);
    num_border += s->bins[i] == border_bin;
  }
  s->border.resize(num_border);
  float* weights = s->weights.data();
  const int32_t* bins = s->bins.data();
  for (size_t i = 0; i < count; ++i) weights[i] = bins[i] > border_bin ? 0 : weights[i];
  s->total = reached + cut_border(wanted - reached, s);
}

// The logit below which min-p and top-k drop a token.
float threshold_of(std::span<const float> logits,
                   const SamplingParams& p,
                   float max,
                   SamplerScratch* s) {
  float threshold = kMinusInfinity;
  if (p.min_p > 0) {
    const double exact = max + p.temperature * std::log(p.min_p);
    threshold = static_cast<float>(exact);
    if (threshold < exact) {
      threshold = std::nextafter(threshold, std::numeric_limits<float>::infinity());
    }
  }
  if (p.top_k > 0 && p.top_k < static_cast<int>(logits.size())) {
    threshold = std::max(threshold, kth_largest(logits, p.top_k, &s->select));
  }
  return threshold;
}

}  // namespace

void keep_tokens(std::span<const float> logits, const SamplingParams& p, SamplerScratch* s) {
  s->kept.clear();
  s->kept_logits.clear();
  s->weights.clear();
  const float max = max_logit(logits);
  if (!std::isfinite(max)) return;
  const float threshold = threshold_of(logits, p, max, s);
  s->kept.resize(logits.size());
  s->kept_logits.resize(logits.size());
  size_t count = 0;
  if (threshold == kMinusInfinity) {
    std::iota(s->kept.begin(), s->kept.end(), 0);
    std::ranges::copy(logits, s->kept_logits.begin());
    count = logits.size();
  } else {
    for (size_t i = 0; i < logits.size(); ++i) {  // without branches
      s->kept[count] = static_cast<int32_t>(i);
      s->kept_logits[count] = logits[i];
      count += logits[i] >= threshold;
    }
  }
  s->kept.resize(count);
  s->kept_logits.resize(count);
  const auto inverse_temperature = static_cast<float>(1 / p.temperature);
  s->weights.resize(s->kept.size());
  s->total = exp_weights(s->kept_logits, max, inverse_temperature, s->weights);
  if (p.top_p < 1) apply_top_p(p.top_p, max, inverse_temperature, s);
}

LogprobList logprobs_of(std::span<const float> logits,
                        int32_t token,
                        int count,
                        SamplerScratch* scratch) {
  const double normaliser = log_sum_exp(logits, max_logit(logits));
  const auto entry = [&](int32_t id, int rank) {
    return TokenLogprob{id, static_cast<float>(logits[id] - normaliser), rank};
  };
  LogprobList list;
  list.reserve(count + 1);
  list.push_back(entry(token, rank_of(logits, logits[token])));
  top_k(logits, std::min(count, static_cast<int>(logits.size())), &scratch->select, &scratch->top);
  for (size_t i = 0; i < scratch->top.size(); ++i) {
    list.push_back(entry(scratch->top[i].token, static_cast<int>(i) + 1));
  }
  return list;
}

LogprobList Sampler::prompt_logprobs(int slot,
                                     int32_t token,
                                     std::span<const float> logits,
                                     SamplerScratch* scratch) const {
  return logprobs_of(logits, token, *slots_[slot].sampling.prompt_logprobs, scratch);
}

}  // namespace quire
