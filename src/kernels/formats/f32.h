// F32: plain floats. A panel is [k][32] f32: element (k, column).
#pragma once

#include <cstdint>
#include <cstring>

namespace quire::formats {

struct F32Format {
  static constexpr int kBytes = 4;
  static constexpr int kGroup = 1;  // k is padded to a multiple of it
  static float value(const uint8_t* p) {
    float v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  // Byte offset of (k, column) in the panel.
  static int64_t offset(int64_t k, int column) { return (k * 32 + column) * 4; }
};

}  // namespace quire::formats
