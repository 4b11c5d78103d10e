// Q5_K: 256 weights w = (d sc_j) q - (dmin m_j), 5 bits each, eight sub-blocks j of 32 with 6-bit
// scale and min: 5.5 bits a weight.
//
// Block in a checkpoint (176 bytes):  f16 d | f16 dmin | 12 bytes of scales and mins (k_scales.h) |
//                                     qh[32]: bit j of byte i = bit 4 of code i of sub-block j |
//                                     qs[128]: byte 32c + i = low nibbles of sub-blocks 2c, 2c + 1
// Packed (5760 bytes for 256 k):      f16 d[32] | f16 dmin[32] | 8 x { nibbles [4][32][4] |
//                                     high bits [32][4] | u8 scale[32] | u8 min[32] }
#pragma once

#include "kernels/formats/codes.h"
#include "kernels/formats/k_scales.h"

namespace quire::formats {

struct Q5_KFormat {
  using Packed = Q5_K;
  static constexpr int kElems = 256;
  static constexpr int kBlockBytes = 176;

  // d_sc = d * scale and dmin_m = dmin * min, both exact in f32.
  static float value(float d_sc, float dmin_m, uint8_t q) {
    const float scaled = d_sc * static_cast<float>(q);
    return scaled - dmin_m;
  }

  // Codes of sub-block j (32 k): low or high nibbles of 32 bytes shared with its neighbour.
  static void codes(const uint8_t* block, int j, uint8_t* q) {
    const uint8_t* bytes = block + 48 + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) q[i] = j % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
    for (int i = 0; i < 32; ++i) q[i] |= ((block[16 + i] >> j) & 1) << 4;
  }

  static void values(
      float d, float dmin, uint8_t scale, uint8_t min, const uint8_t* q, float* out) {
    const float d_sc = d * static_cast<float>(scale);
    const float dmin_m = dmin * static_cast<float>(min);
    for (int i = 0; i < 32; ++i) out[i] = value(d_sc, dmin_m, q[i]);
  }

  static void dequant(const uint8_t* block, float* out) {
    const float d = f16_to_f32(load_u16(block));
    const float dmin = f16_to_f32(load_u16(block + 2));
    for (int j = 0; j < 8; ++j) {
      uint8_t q[32], scale, min;
      codes(block, j, q);
      k_scale_min(block + 4, j, &scale, &min);
      values(d, dmin, scale, min, q, out + 32 * j);
    }
  }

  static void pack(const uint8_t* block, int column, uint8_t* super) {
    copy_u16(super + 2 * column, block);
    copy_u16(super + 64 + 2 * column, block + 2);
    for (int j = 0; j < 8; ++j) {
      uint8_t* record = super + Packed::kHeader + j * Packed::kBytes;
      uint8_t q[32];
      codes(block, j, q);
      store_codes<Packed::kBits>(record, column, q);
      uint8_t* scales = record + Packed::kCodeBytes + column;
      k_scale_min(block + 4, j, scales, scales + 32);
    }
  }

  static void unpack(const uint8_t* super, int column, float* out) {
    const float d = f16_to_f32(load_u16(super + 2 * column));
    const float dmin = f16_to_f32(load_u16(super + 64 + 2 * column));
    for (int j = 0; j < 8; ++j) {
      const uint8_t* record = super + Packed::kHeader + j * Packed::kBytes;
      const uint8_t* scales = record + Packed::kCodeBytes + column;
      uint8_t q[32];
      load_codes<Packed::kBits>(record, column, q);
      values(d, dmin, scales[0], scales[32], q, out + 32 * j);
    }
  }
};

}  // namespace quire::formats
