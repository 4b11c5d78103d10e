// Exact scalar conversions between f32 and the two 16-bit float types, without any ISA extension.
//
// `static inline`, not `inline`: units of every ISA level may include this header, and a function
// with external linkage emitted by two of them could be linked from the wrong one.
#pragma once

#include <stdint.h>

namespace quire {

static inline float f32_from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline uint32_t bits_of_f32(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static inline float bf16_to_f32(uint16_t h) {
  return f32_from_bits(static_cast<uint32_t>(h) << 16);
}

// Every f16 value is an f32 value; a NaN keeps its payload and becomes quiet.
static inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 0x1f;
  uint32_t mantissa = h & 0x3ff;
  if (exponent == 0x1f) {
    const uint32_t quiet = mantissa != 0 ? 0x400000 : 0;
    return f32_from_bits(sign | 0x7f800000 | quiet | (mantissa << 13));
  }
  if (exponent != 0) return f32_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  if (mantissa == 0) return f32_from_bits(sign);
  uint32_t e = 113;  // subnormal: shift the leading one into place
  while ((mantissa & 0x400) == 0) {
    mantissa <<= 1;
    --e;
  }
  return f32_from_bits(sign | (e << 23) | ((mantissa & 0x3ff) << 13));
}

// Round to nearest even; beyond the range: infinity.
static inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = bits_of_f32(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) {
    return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  }
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // >= 65520
  if (magnitude < 0x33000000) return sign;                                   // < 2^-25
  if (magnitude >= 0x38800000) {                                             // normal
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
  }
  const int shift = 126 - static_cast<int>(magnitude >> 23);  // 14 .. 24: to units of 2^-24
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t half = 1u << (shift - 1);
  const uint32_t kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((half << 1) - 1);
  const uint32_t up = rest > half || (rest == half && (kept & 1)) ? 1 : 0;
  return static_cast<uint16_t>(sign | (kept + up));
}

// Round to nearest even; a NaN stays a NaN.
static inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = bits_of_f32(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace quire
