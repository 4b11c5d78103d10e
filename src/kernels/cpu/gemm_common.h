// What the matrix units of every level share: the layout of prepared activation rows. Plain data
// and `static inline` only (see ops.h).
//
// A prepared row is contiguous and self-contained, rows are `stride` bytes apart:
//
//   kF32           f32 x[cols], zero-padded to 32
//   kInt16, kInt8  codes: 64 bytes per group of 32 k, in the order of the op table that wrote them
//                  f32 scale[groups]   kInt16: scale[0] is the row's; kInt8: one per group
//                  f32 fsum[groups]    sum of the group's codes (kInt8: times scale): for mins
//                  i32 sum[groups]     sum of the group's codes: for zero points
//                  i32 half_sum[2 * groups]  the same per 16 k (Q6_K)
//
// The stride is an odd multiple of 64 bytes, so that equal columns of many rows spread over the
// sets of a cache.
//
// kInt16: scale = max|x| / 32512, q = rint(x * (32512 / max|x|)): |q| <= 32512 = 127 * 256, so that
// q = 256 hi + lo has hi and lo in a signed byte. kInt8: the same per group of 32 with 127. A
// maximum below 2^-100 counts as zero (scale 0, codes 0); a row (kInt8: group) with an infinity or
// a NaN has scale NaN and codes 0, so that all its outputs are NaN.
#pragma once

#include <stdint.h>

#include "base/mutants.h"
#include "kernels/ops.h"

namespace quire {

// pack.h, which units of an ISA level cannot include.
void dequantize_row(const PackedMatrix& w, int64_t row, float* out);

namespace cpu {

struct RowLayout {
  int64_t groups;  // of 32 columns
  int64_t scale, fsum, sum, half_sum;
  int64_t stride;
};

static inline int64_t odd_lines(int64_t bytes) { return ((bytes + 63) / 64 | 1) * 64; }

static inline RowLayout row_layout(ActivationType type, int64_t cols) {
  const int64_t g = (cols + 31) / 32;
  RowLayout row = {g, 0, 0, 0, 0, odd_lines(g * 128)};
  if (type == ActivationType::kF32) return row;
  row.scale = g * 64;
  row.fsum = row.scale + g * 4;
  row.sum = row.fsum + g * 4;
  row.half_sum = row.sum + g * 4;
  row.stride = odd_lines(row.half_sum + g * 8);
  return row;
}

}  // namespace cpu
}  // namespace quire
