// Q5_0: 32 weights w = d (q - 16), 5 bits each and one f16 scale: 5.5 bits a weight.
//
// Block in a checkpoint (22 bytes):  f16 d | u32 high: bit i = bit 4 of q[i] | 16 bytes: byte i =
//                                    low nibbles of q[i] and q[i + 16]
// Packed record (704 bytes):         nibbles [4][32][4] | high bits [32][4] | f16 d[32]
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct Q5_0Format {
  using Packed = Q5_0;
  static constexpr int kElems = 32;
  static constexpr int kBlockBytes = 22;

  static float value(float d, uint8_t q) {
    return d * static_cast<float>(static_cast<int>(q) - Packed::kZero);
  }

  static void codes(const uint8_t* block, uint8_t* q) {
    split_nibbles(block + 6, q);
    const uint32_t high = load_u32(block + 2);
    for (int i = 0; i < 32; ++i) q[i] |= ((high >> i) & 1) << 4;
  }

  static void dequant(const uint8_t* block, float* out) {
    const float d = f16_to_f32(load_u16(block));
    uint8_t q[32];
    codes(block, q);
    for (int i = 0; i < 32; ++i) out[i] = value(d, q[i]);
  }

  static void pack(const uint8_t* block, int column, uint8_t* record) {
    uint8_t q[32];
    codes(block, q);
    store_codes<Packed::kBits>(record, column, q);
    copy_u16(record + Packed::kCodeBytes + 2 * column, block);
  }

  static void unpack(const uint8_t* record, int column, float* out) {
    const float d = f16_to_f32(load_u16(record + Packed::kCodeBytes + 2 * column));
    uint8_t q[32];
    load_codes<Packed::kBits>(record, column, q);
    for (int i = 0; i < 32; ++i) out[i] = value(d, q[i]);
  }
};

}  // namespace quire::formats
