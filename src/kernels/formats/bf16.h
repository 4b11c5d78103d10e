// BF16: the upper 16 bits of a float. A panel is [k/2][32][2]: pairs of k beside one another, the
// order of vdpbf16ps and of AMX tiles; an odd k is padded with a zero weight.
#pragma once

#include "kernels/formats/codes.h"

namespace quire::formats {

struct BF16Format {
  static constexpr int kBytes = 2;
  static constexpr int kGroup = 2;
  static float value(const uint8_t* p) { return bf16_to_f32(load_u16(p)); }
  // Byte offset of (k, column) in the panel.
  static int64_t offset(int64_t k, int column) { return ((k / 2) * 64 + 2 * column + k % 2) * 2; }
};

}  // namespace quire::formats
