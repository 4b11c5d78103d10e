// The packed record of each quantised format, as constants. Plain data: every ISA unit includes it.
//
// A record holds 32 columns (rows of W) by 32 k. Codes are unsigned integers q; a weight is
// scale * (q - kZero), plus a min where the format has one. k = 4 s + j with step s in [0, 8) and
// byte j in [0, 4); c is the column:
//
//   4 bits   nibbles  [4][32 c][4 j]   byte (s, c, j): low nibble k = 4s + j, high nibble
//                                      k = 16 + 4s + j
//   5 bits   nibbles, then [32 c][4 j]      bit s of byte (c, j): bit 4 of the code of k = 4s + j
//   6 bits   nibbles, then [2 p][32 c][4 j] bits 2i, 2i+1 of byte (p, c, j): bits 4 and 5 of the
//                                           code of k = 16p + 4i + j
//   8 bits   bytes    [8 s][32 c][4 j]
//
// Codes are followed by the record's scales:
//
//   kHalf      f16 d[32]                        Q4_0, Q5_0, Q8_0
//   kHalfMin   f16 d[32], f16 m[32]             Q4_1, Q5_1
//   kSuperMin  u8 scale[32], u8 min[32]         Q4_K, Q5_K: times d and dmin of the superblock
//   kSuper16   i8 scale[2][32]                  Q6_K: one per 16 k, times d of the superblock
//
// K-quants put f16 d[32] (and f16 dmin[32]) before each eight records (256 k). No format takes more
// bits than in the checkpoint, except that Q4_K and Q5_K widen their 6-bit scales to bytes. Records
// are multiples of 64 bytes, so all of them are aligned.
#pragma once

#include <stdint.h>

#include "tensor/dtype.h"

namespace quire::formats {

enum class Scales { kHalf, kHalfMin, kSuperMin, kSuper16 };

template <DType type, int bits, int zero, Scales scales>
struct Record {
  static constexpr DType kType = type;
  static constexpr int kBits = bits;
  static constexpr int kZero = zero;
  static constexpr Scales kScales = scales;
  static constexpr bool kSuper = scales == Scales::kSuperMin || scales == Scales::kSuper16;
  static constexpr bool kHasMins = scales == Scales::kHalfMin || scales == Scales::kSuperMin;
  static constexpr bool kPer16 = scales == Scales::kSuper16;  // one scale per 16 k
  static constexpr int kCodeBytes = 128 * bits;
  static constexpr int kBytes = kCodeBytes + (scales == Scales::kHalfMin ? 128 : 64);
  static constexpr int kHeader =
      scales == Scales::kSuperMin ? 128 : (scales == Scales::kSuper16 ? 64 : 0);
  static constexpr int kPerHeader = kSuper ? 8 : 1;              // records that follow a header
  static constexpr int kStride = kHeader + kPerHeader * kBytes;  // from header to header
};

using Q4_0 = Record<DType::kQ4_0, 4, 8, Scales::kHalf>;
using Q4_1 = Record<DType::kQ4_1, 4, 0, Scales::kHalfMin>;
using Q5_0 = Record<DType::kQ5_0, 5, 16, Scales::kHalf>;
using Q5_1 = Record<DType::kQ5_1, 5, 0, Scales::kHalfMin>;
using Q8_0 = Record<DType::kQ8_0, 8, 128, Scales::kHalf>;
using Q4_K = Record<DType::kQ4_K, 4, 0, Scales::kSuperMin>;
using Q5_K = Record<DType::kQ5_K, 5, 0, Scales::kSuperMin>;
using Q6_K = Record<DType::kQ6_K, 6, 32, Scales::kSuper16>;

}  // namespace quire::formats
