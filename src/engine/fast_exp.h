// exp for weights of a distribution: 1 ulp or so of f32, and simple enough that the compiler turns
// a loop over it into vector code, which std::exp is not.
#pragma once

#include <bit>
#include <cstdint>

namespace quire {

// exp(x) for x <= 0; 0 below -87 (where f32 becomes subnormal) and for -inf.
inline float exp_nonpositive(float x) {
  constexpr float kLog2E = 1.44269504f, kMagic = 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  const float clamped = x > -87.0f ? x : -87.0f;
  const float n = (clamped * kLog2E + kMagic) - kMagic;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;  // |r| <= ln(2) / 2
  // Taylor series to r^7 / 7!: the rest is below 6e-9 relative.
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  const float result = p * scale;
  return x > -87.0f ? result : 0.0f;
}

}  // namespace quire
