// Q8_0: 32 weights w = d q, q a signed byte, and one f16 scale: 8.5 bits a weight.
//
// Block in a checkpoint (34 bytes):  f16 d | i8 q[32]
// Packed record (1088 bytes):        u8 (q + 128) [8][32][4] | f16 d[32]
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct Q8_0Format {
  using Packed = Q8_0;
  static constexpr int kElems = 32;
  static constexpr int kBlockBytes = 34;

  static float value(float d, uint8_t q) {
    return d * static_cast<float>(static_cast<int>(q) - Packed::kZero);
  }

  static void codes(const uint8_t* block, uint8_t* q) {
    for (int i = 0; i < 32; ++i) q[i] = block[2 + i] ^ 0x80;  // signed -> signed + 128
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
