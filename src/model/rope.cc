// Formulas: Su et al., arXiv:2104.09864, eq. 15 (theta_i = base^(-2i/d)); Peng et al.,
// arXiv:2309.00071, sections 3.1-3.4 (linear, NTK, yarn); the llama3 rule is that of Hugging Face
// transformers, modeling_rope_utils.py, whose results all of these equal.
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <thread>

#include "base/mutants.h"

namespace quire {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// The wavelengths above old_context / low_freq_factor are stretched by `factor`, those below
// old_context / high_freq_factor stay, and between them the two are blended.
double scale_llama3(const RopeConfig& rope, double inverse_frequency) {
  const double wavelength = kTwoPi / inverse_frequency;
  const double context = rope.original_max_position;
  if (wavelength < context / rope.high_freq_factor) return inverse_frequency;
  if (wavelength > context / rope.low_freq_factor) return inverse_frequency / rope.factor;
  const double smooth = (context / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * inverse_frequency / rope.factor + smooth * inverse_frequency;
}

// The pair whose wavelength makes `rotations` turns over the original context.
double yarn_correction_dim(const RopeConfig& rope, double rotations) {
  return rope.rotary_dim * std::log(rope.original_max_position / (rotations * kTwoPi)) /
         (2.0 * std::log(rope.theta));
}

void scale_yarn(const RopeConfig& rope, std::vector<double>& frequencies) {
  double low = yarn_correction_dim(rope, rope.beta_fast);
  double high = yarn_correction_dim(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / rope.factor * ramp + frequencies[i] * (1.0 - ramp);
  }
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

}  // namespace

std::vector<double> rope_inverse_frequencies(const RopeConfig& rope) {
  std::vector<double> frequencies(static_cast<size_t>(rope.rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double pair = static_cast<double>(i) + (mutant("golden_rope_off_by_one") ? 1 : 0);
    frequencies[i] = std::pow(rope.theta, -2.0 * pair / rope.rotary_dim);
    if (!rope.frequency_factors.empty()) frequencies[i] /= rope.frequency_factors[i];
  }
  switch (rope.scaling) {
    case RopeScaling::kLinear:
      for (double& frequency : frequencies) frequency /= rope.factor;
      break;
    case RopeScaling::kLlama3:
      for (double& frequency : frequencies) frequency = scale_llama3(rope, frequency);
      break;
    case RopeScaling::kYarn:
      scale_yarn(rope, frequencies);
      break;
    case RopeScaling::kNone:
    case RopeScaling::kDynamic:  // changes nothing up to the original context, our limit
    case RopeScaling::kLongRope:
      break;
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1.0;
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  if (rope.mscale > 0.0 && rope.mscale_all_dim > 0.0) {
    return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim);
  }
  return yarn_mscale(rope.factor, 1.0);
}

std::vector<float> rope_table(const RopeConfig& rope, int max_position, int num_threads) {
  const std::vector<double> frequencies = rope_inverse_frequencies(rope);
  const double scale = rope_attention_factor(rope);
  const int64_t half = static_cast<int64_t>(frequencies.size());
  std::vector<float> table(static_cast<size_t>(max_position * 2 * half));
  auto fill = [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      float* row = table.data() + position * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * frequencies[static_cast<size_t>(i)];
        row[i] = static_cast<float>(std::cos(angle) * scale);
        row[half + i] = static_cast<float>(std::sin(angle) * scale);
      }
    }
  };
  const int64_t workers = half == 0 ? 1 : std::clamp(num_threads, 1, 1 + max_position / 4096);
  std::vector<std::jthread> threads;
  for (int64_t i = 1; i < workers; ++i) {
    threads.emplace_back(fill, max_position * i / workers, max_position * (i + 1) / workers);
  }
  fill(0, max_position / workers);
  return table;
}

}  // namespace quire
