#include "kernels/cpu/detect.h"

#if defined(QUIRE_X86)
#include <cpuid.h>
#endif

namespace quire::cpu {

#if defined(QUIRE_X86)
namespace {

// XCR0: the register state that the operating system saves. Only where CPUID says OSXSAVE.
uint64_t xcr0() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

}  // namespace

// Bit numbers: Intel SDM volume 2A, CPUID; XCR0: volume 1, section 13.3.
uint32_t detect_features() {
  uint32_t a, b, c, d;
  uint32_t features = 0;
  auto take = [&features](uint32_t reg, int bit, Feature feature) {
    if (reg >> bit & 1) features |= feature;
  };
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  take(c, 12, kFma);
  take(c, 29, kF16c);
  if (c >> 27 & 1) {
    const uint64_t state = xcr0();
    if ((state & 0x6) == 0x6) features |= kOsYmm;
    if ((state & 0xe6) == 0xe6) features |= kOsZmm;
  }
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return features;
  take(b, 5, kAvx2);
  take(b, 16, kAvx512f);
  take(b, 17, kAvx512dq);
  take(b, 30, kAvx512bw);
  take(b, 31, kAvx512vl);
  take(c, 11, kAvx512vnni);
  return features;
}
#else
uint32_t detect_features() { return 0; }
#endif

std::string missing_feature(uint32_t needed) {
  static constexpr struct {
    Feature feature;
    const char* message;
  } kMessages[] = {
      {kAvx2, "the CPU has no AVX2"},
      {kFma, "the CPU has no FMA"},
      {kF16c, "the CPU has no F16C"},
      {kOsYmm, "the operating system does not save AVX registers"},
      {kAvx512f, "the CPU has no AVX512F"},
      {kAvx512bw, "the CPU has no AVX512BW"},
      {kAvx512dq, "the CPU has no AVX512DQ"},
      {kAvx512vl, "the CPU has no AVX512VL"},
      {kOsZmm, "the operating system does not save AVX-512 registers"},
      {kAvx512vnni, "the CPU has no AVX512_VNNI"},
  };
  const uint32_t missing = needed & ~detect_features();
  for (const auto& entry : kMessages) {
    if (missing & entry.feature) return entry.message;
  }
  return "";
}

}  // namespace quire::cpu
