// What the CPU and the operating system support.
#pragma once

#include <cstdint>
#include <string>

namespace quire::cpu {

enum Feature : uint32_t {
  kFma = 1 << 0,
  kF16c = 1 << 1,
  kAvx2 = 1 << 2,
  kAvx512f = 1 << 3,
  kAvx512bw = 1 << 4,
  kAvx512dq = 1 << 5,
  kAvx512vl = 1 << 6,
  kAvx512vnni = 1 << 7,
  kOsYmm = 1 << 8,  // the operating system saves the upper halves of ymm registers,
  kOsZmm = 1 << 9,  // and zmm and mask registers
};

inline constexpr uint32_t kAvx2Features = kOsYmm | kAvx2 | kFma | kF16c;
inline constexpr uint32_t kAvx512Features =
    kAvx2Features | kOsZmm | kAvx512f | kAvx512bw | kAvx512dq | kAvx512vl;
inline constexpr uint32_t kAvx512VnniFeatures = kAvx512Features | kAvx512vnni;

// The features of this machine; 0 on another architecture than x86-64.
uint32_t detect_features();
// "" when this machine has all of `needed`, else what is missing: "the CPU has no AVX512F".
std::string missing_feature(uint32_t needed);

}  // namespace quire::cpu
