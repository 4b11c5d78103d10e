// Q4_0: 32 weights w = d (q - 8), 4 bits each and one f16 scale: 4.5 bits a weight.
//
// Block in a checkpoint (18 bytes):  f16 d | 16 bytes: byte i = q[i] | q[i + 16] << 4
// Packed record (576 bytes):         nibbles [4][32][4] | f16 d[32]
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct Q4_0Format {
  using Packed = Q4_0;
  static constexpr int kElems = 32;
  static constexpr int kBlockBytes = 18;

  static float value(float d, uint8_t q) {
    return d * static_cast<float>(static_cast<int>(q) - Packed::kZero);
  }

  static void codes(const uint8_t* block, uint8_t* q) { split_nibbles(block + 2, q); }

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
