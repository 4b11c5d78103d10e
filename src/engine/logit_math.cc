#include "engine/logit_math.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "base/check.h"
#include "engine/fast_exp.h"

namespace quire {

namespace {

constexpr int kLanes = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Order-preserving: a < b as floats means key(a) < key(b); -0 equals 0 and NaN sorts lowest.
// Without branches, for the vectoriser.
uint32_t sort_key(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  bits = magnitude == 0 ? 0 : bits;
  const auto sign = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31);
  const uint32_t key = bits ^ (sign | 0x80000000u);
  return magnitude > 0x7f800000u ? 0 : key;
}

// Folds `better` in lanes. A NaN as its first argument gives way to the second.
template <class F>
float extreme(std::span<const float> logits, float start, F better) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, start);
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = better(logits[i + j], lanes[j]);
  }
  float best = start;
  for (float lane : lanes) best = better(lane, best);
  for (size_t i = whole; i < logits.size(); ++i) best = better(logits[i], best);
  return best;
}

float value_of(uint32_t key) {
  const uint32_t sign = key & 0x80000000u ? 0x80000000u : 0xffffffffu;
  return key == 0 ? std::numeric_limits<float>::quiet_NaN() : std::bit_cast<float>(key ^ sign);
}

}  // namespace

float max_logit(std::span<const float> logits) {
  return extreme(logits, -kInfinity, [](float a, float b) { return a > b ? a : b; });
}

float min_logit(std::span<const float> logits) {
  return extreme(logits, kInfinity, [](float a, float b) { return a < b ? a : b; });
}

// One pass for the maximum in blocks of 1024, which names the block to search.
int32_t argmax(std::span<const float> logits) {
  constexpr size_t kBlock = 1024;
  float best = -kInfinity;
  size_t best_block = 0;
  for (size_t start = 0; start < logits.size(); start += kBlock) {
    const float max = max_logit(logits.subspan(start, std::min(kBlock, logits.size() - start)));
    if (max > best) best = max, best_block = start;
  }
  if (!std::isfinite(best)) return -1;
  const size_t end = std::min(best_block + kBlock, logits.size());
  for (size_t i = best_block; i < end; ++i) {
    if (logits[i] == best) return static_cast<int32_t>(i);
  }
  return -1;
}

double exp_weights(std::span<const float> logits,
                   float max,
                   float inverse_temperature,
                   std::span<float> weights) {
  constexpr size_t kBlock = 256;  // summed in f32 lanes, then in double
  double sum = 0;
  for (size_t start = 0; start < logits.size(); start += kBlock) {
    const size_t end = std::min(start + kBlock, logits.size());
    float* out = weights.data();
    for (size_t i = start; i < end; ++i) {
      out[i] = exp_nonpositive((logits[i] - max) * inverse_temperature);
    }
    float lanes[kLanes] = {};
    size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) lanes[j] += out[i + j];
    }
    for (; i < end; ++i) lanes[0] += out[i];
    for (float lane : lanes) sum += lane;
  }
  return sum;
}

double log_sum_exp(std::span<const float> logits, float max) {
  std::array<float, 1024> weights;
  double sum = 0;
  for (size_t start = 0; start < logits.size(); start += weights.size()) {
    sum += exp_weights(
        logits.subspan(start, std::min(weights.size(), logits.size() - start)), max, 1.0f, weights);
  }
  return max + std::log(sum);
}

// A histogram of the keys' upper 12 bits says where the k-th largest lies; only that bin is
// selected from.
float kth_largest(std::span<const float> logits, int k, SelectScratch* scratch) {
  QUIRE_CHECK(k >= 1 && k <= static_cast<int>(logits.size()));
  constexpr int kShift = 20;
  scratch->keys.resize(logits.size());
  uint32_t* keys = scratch->keys.data();
  for (size_t i = 0; i < logits.size(); ++i) keys[i] = sort_key(logits[i]);
  std::array<int32_t, 1 << (32 - kShift)> histogram{};
  for (uint32_t key : scratch->keys) ++histogram[key >> kShift];
  int above = 0;
  uint32_t bin = histogram.size() - 1;
  while (above + histogram[bin] < k) above += histogram[bin--];
  scratch->border.clear();
  for (uint32_t key : scratch->keys) {
    if (key >> kShift == bin) scratch->border.push_back(key);
  }
  const auto kth = scratch->border.begin() + (k - above - 1);
  std::nth_element(scratch->border.begin(), kth, scratch->border.end(), std::greater<>());
  return value_of(*kth);
}

void top_k(std::span<const float> logits,
           int k,
           SelectScratch* scratch,
           std::vector<TokenLogit>* out) {
  out->clear();
  if (k == 0) return;
  const uint32_t least = sort_key(kth_largest(logits, k, scratch));
  for (size_t i = 0; i < logits.size(); ++i) {
    if (scratch->keys[i] >= least) out->push_back({static_cast<int32_t>(i), logits[i]});
  }
  std::ranges::sort(*out, [](const TokenLogit& a, const TokenLogit& b) {
    const uint32_t key_a = sort_key(a.logit), key_b = sort_key(b.logit);
    return key_a != key_b ? key_a > key_b : a.token < b.token;
  });
  out->resize(k);
}

int rank_of(std::span<const float> logits, float logit) {
  int greater = 0;
  for (float value : logits) greater += value > logit;
  return greater + 1;
}

}  // namespace quire
