// The 6-bit scales and mins of Q4_K and Q5_K: eight of each in 12 bytes.
#pragma once

#include <cstdint>

namespace quire::formats {

// Sub-blocks 0..3 lie in the low six bits of bytes j and j + 4; of sub-blocks 4..7 the low nibbles
// are in byte j + 4 (scale low, min high) and the upper two bits in the top of bytes j - 4 and j.
inline void k_scale_min(const uint8_t* packed, int j, uint8_t* scale, uint8_t* min) {
  if (j < 4) {
    *scale = packed[j] & 63;
    *min = packed[j + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4));
    *min = static_cast<uint8_t>((packed[j + 4] >> 4) | ((packed[j] >> 6) << 4));
  }
}

}  // namespace quire::formats
