// Q6_K: 256 weights w = (d sc) (q - 32), 6 bits each, a signed byte scale sc per 16: 6.56 bits a
// weight.
//
// Block in a checkpoint (210 bytes):  ql[128] | qh[64] | i8 sc[16] | f16 d. Sub-block j of 32 in
//                                     half h = j / 4, quarter r = j % 4: low nibbles in
//                                     ql[64h + 32 (r % 2) + i], in the low half of the byte if
//                                     r < 2; upper bits in bits 2r, 2r + 1 of qh[32h + i]
// Packed (6720 bytes for 256 k):      f16 d[32] | 8 x { nibbles [4][32][4] | upper bits [2][32][4]
// |
//                                     i8 sc[2][32] }
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct Q6_KFormat {
  using Packed = Q6_K;
  static constexpr int kElems = 256;
  static constexpr int kBlockBytes = 210;

  static float value(float d_sc, uint8_t q) {
    return d_sc * static_cast<float>(static_cast<int>(q) - Packed::kZero);
  }

  // Codes of sub-block j (32 k).
  static void codes(const uint8_t* block, int j, uint8_t* q) {
    const uint8_t* low = block + 64 * (j / 4) + 32 * (j % 2);
    const uint8_t* high = block + 128 + 32 * (j / 4);
    const int low_shift = (j % 4) < 2 ? 0 : 4;
    const int high_shift = 2 * (j % 4);
    for (int i = 0; i < 32; ++i) {
      q[i] =
          static_cast<uint8_t>(((low[i] >> low_shift) & 15) | (((high[i] >> high_shift) & 3) << 4));
    }
  }

  // Two scales, of 16 k each.
  static void values(float d, int8_t scale0, int8_t scale1, const uint8_t* q, float* out) {
    const float d_sc[2] = {d * static_cast<float>(scale0), d * static_cast<float>(scale1)};
    for (int i = 0; i < 32; ++i) out[i] = value(d_sc[i / 16], q[i]);
  }

  static void dequant(const uint8_t* block, float* out) {
    const float d = f16_to_f32(load_u16(block + 208));
    for (int j = 0; j < 8; ++j) {
      uint8_t q[32];
      codes(block, j, q);
      values(d,
             static_cast<int8_t>(block[192 + 2 * j]),
             static_cast<int8_t>(block[193 + 2 * j]),
             q,
             out + 32 * j);
    }
  }

  static void pack(const uint8_t* block, int column, uint8_t* super) {
    copy_u16(super + 2 * column, block + 208);
    for (int j = 0; j < 8; ++j) {
      uint8_t* record = super + Packed::kHeader + j * Packed::kBytes;
      uint8_t q[32];
      codes(block, j, q);
      store_codes<Packed::kBits>(record, column, q);
      record[Packed::kCodeBytes + column] = block[192 + 2 * j];
      record[Packed::kCodeBytes + 32 + column] = block[193 + 2 * j];
    }
  }

  static void unpack(const uint8_t* super, int column, float* out) {
    const float d = f16_to_f32(load_u16(super + 2 * column));
    for (int j = 0; j < 8; ++j) {
      const uint8_t* record = super + Packed::kHeader + j * Packed::kBytes;
      const uint8_t* scales = record + Packed::kCodeBytes + column;
      uint8_t q[32];
      load_codes<Packed::kBits>(record, column, q);
      values(d, static_cast<int8_t>(scales[0]), static_cast<int8_t>(scales[32]), q, out + 32 * j);
    }
  }
};

}  // namespace quire::formats
