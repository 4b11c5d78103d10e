// Q5_1: 32 weights w = (d q) + m, 5 bits each, one f16 scale and min: 6 bits a weight.
//
// Block in a checkpoint (24 bytes):  f16 d | f16 m | u32 high: bit i = bit 4 of q[i] | 16 bytes:
//                                    byte i = low nibbles of q[i] and q[i + 16]
// Packed record (768 bytes):         nibbles [4][32][4] | high bits [32][4] | f16 d[32] | f16 m[32]
// Product and sum are rounded separately, in f32.
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct Q5_1Format {
  using Packed = Q5_1;
  static constexpr int kElems = 32;
  static constexpr int kBlockBytes = 24;

  static float value(float d, float m, uint8_t q) {
    const float scaled = d * static_cast<float>(q);
    return scaled + m;
  }

  static void codes(const uint8_t* block, uint8_t* q) {
    split_nibbles(block + 8, q);
    const uint32_t high = load_u32(block + 4);
    for (int i = 0; i < 32; ++i) q[i] |= ((high >> i) & 1) << 4;
  }

  static void dequant(const uint8_t* block, float* out) {
    const float d = f16_to_f32(load_u16(block));
    const float m = f16_to_f32(load_u16(block + 2));
    uint8_t q[32];
    codes(block, q);
    for (int i = 0; i < 32; ++i) out[i] = value(d, m, q[i]);
  }

  static void pack(const uint8_t* block, int column, uint8_t* record) {
    uint8_t q[32];
    codes(block, q);
    store_codes<Packed::kBits>(record, column, q);
    copy_u16(record + Packed::kCodeBytes + 2 * column, block);
    copy_u16(record + Packed::kCodeBytes + 64 + 2 * column, block + 2);
  }

  static void unpack(const uint8_t* record, int column, float* out) {
    const float d = f16_to_f32(load_u16(record + Packed::kCodeBytes + 2 * column));
    const float m = f16_to_f32(load_u16(record + Packed::kCodeBytes + 64 + 2 * column));
    uint8_t q[32];
    load_codes<Packed::kBits>(record, column, q);
    for (int i = 0; i < 32; ++i) out[i] = value(d, m, q[i]);
  }
};

}  // namespace quire::formats
