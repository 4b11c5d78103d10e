// Passes over one row of logits [V]: maxima, sums, selections. None sorts the vocabulary. NaN never
// wins and weighs nothing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quire {

struct TokenLogit {
  int32_t token;
  float logit;
};

// The position of the maximum, the lowest among equals; -1 if all are NaN or -inf, or if any is
// +inf or NaN where there is no finite maximum.
int32_t argmax(std::span<const float> logits);
float max_logit(std::span<const float> logits);
float min_logit(std::span<const float> logits);

// log(sum exp(logits)).
double log_sum_exp(std::span<const float> logits, float max);

// weights[i] = exp((logits[i] - max) * inverse_temperature); returns their sum.
double exp_weights(std::span<const float> logits,
                   float max,
                   float inverse_temperature,
                   std::span<float> weights);

// The k-th largest value, 1 <= k <= V. *scratch keeps its memory from call to call.
struct SelectScratch {
  std::vector<uint32_t> keys, border;
};
float kth_largest(std::span<const float> logits, int k, SelectScratch* scratch);

// The k largest, largest first, lower token first among equals.
void top_k(std::span<const float> logits,
           int k,
           SelectScratch* scratch,
           std::vector<TokenLogit>* out);

// 1 + how many logits are greater.
int rank_of(std::span<const float> logits, float logit);

}  // namespace quire
