// Places the 32 codes of one column into a record, and back. Little-endian (x86-64, AArch64).
#pragma once

#include <cstdint>
#include <cstring>

#include "base/mutants.h"
#include "kernels/formats/records.h"
#include "tensor/half.h"

namespace quire::formats {

inline uint16_t load_u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline uint32_t load_u32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void store_u32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, sizeof(v)); }
inline void copy_u16(uint8_t* to, const uint8_t* from) { std::memcpy(to, from, 2); }

// q [32]: codes in increasing k, each below 2^bits.
template <int bits>
void store_codes(uint8_t* record, int column, const uint8_t* q) {
  const int step = mutant("kernels_pack_steps_reversed") ? 28 : 0;  // XOR on 4 s: s -> 7 - s
  uint32_t w[8];
  for (int s = 0; s < 8; ++s) w[s] = load_u32(q + ((4 * s) ^ step));
  uint8_t* at = record + 4 * column;
  if constexpr (bits == 8) {
    for (int s = 0; s < 8; ++s) store_u32(at + 128 * s, w[s]);
    return;
  }
  for (int s = 0; s < 4; ++s) {
    store_u32(at + 128 * s, (w[s] & 0x0f0f0f0f) | ((w[s + 4] & 0x0f0f0f0f) << 4));
  }
  if constexpr (bits == 5) {
    uint32_t high = 0;
    for (int s = 0; s < 8; ++s) high |= ((w[s] >> 4) & 0x01010101) << s;
    store_u32(at + 512, high);
  }
  if constexpr (bits == 6) {
    for (int p = 0; p < 2; ++p) {
      uint32_t high = 0;
      for (int i = 0; i < 4; ++i) high |= ((w[4 * p + i] >> 4) & 0x03030303) << (2 * i);
      store_u32(at + 512 + 128 * p, high);
    }
  }
}

template <int bits>
void load_codes(const uint8_t* record, int column, uint8_t* q) {
  const uint8_t* at = record + 4 * column;
  if constexpr (bits == 8) {
    for (int s = 0; s < 8; ++s) store_u32(q + 4 * s, load_u32(at + 128 * s));
    return;
  }
  uint32_t w[8];
  for (int s = 0; s < 4; ++s) {
    const uint32_t v = load_u32(at + 128 * s);
    w[s] = v & 0x0f0f0f0f;
    w[s + 4] = (v >> 4) & 0x0f0f0f0f;
  }
  if constexpr (bits == 5) {
    const uint32_t high = load_u32(at + 512);
    for (int s = 0; s < 8; ++s) w[s] |= ((high >> s) & 0x01010101) << 4;
  }
  if constexpr (bits == 6) {
    for (int s = 0; s < 8; ++s) {
      w[s] |= ((load_u32(at + 512 + 128 * (s / 4)) >> (2 * (s % 4))) & 0x03030303) << 4;
    }
  }
  for (int s = 0; s < 8; ++s) store_u32(q + 4 * s, w[s]);
}

// The low nibbles of 16 bytes are elements 0..15, the high nibbles 16..31 (Q4_0 to Q5_1).
inline void split_nibbles(const uint8_t* bytes, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = bytes[i] & 15;
    q[i + 16] = bytes[i] >> 4;
  }
}

}  // namespace quire::formats
