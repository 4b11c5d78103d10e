// Loops that do nothing but read, multiply-add in f32, or multiply-add integers, as fast as a
// level can: what machine_limits.h measures.
#pragma once

#include <stdint.h>

namespace quire::cpu {

// read() takes a multiple of this many bytes.
constexpr int64_t kLimitReadUnit = 4 * 4096;

struct LimitKernels {
  // Reads all bytes, in four streams.
  uint32_t (*read)(const unsigned char* data, int64_t bytes);
  // Do `rounds` of independent operations; return how many operations, multiply and add as two.
  int64_t (*fma)(int64_t rounds);
  int64_t (*int8)(int64_t rounds);   // 8-bit weight by 8-bit activation
  int64_t (*int16)(int64_t rounds);  // 8-bit weight by 16-bit activation, the way the level does it
};

// Those of the level called `level`; of generic for "ref".
const LimitKernels& limit_kernels(const char* level);

#define QUIRE_DECLARE_LIMITS(level)                              \
  namespace level {                                              \
  uint32_t limit_read(const unsigned char* data, int64_t bytes); \
  int64_t limit_fma(int64_t rounds);                             \
  int64_t limit_int8(int64_t rounds);                            \
  int64_t limit_int16(int64_t rounds);                           \
  }
QUIRE_DECLARE_LIMITS(generic)
QUIRE_DECLARE_LIMITS(avx2)
QUIRE_DECLARE_LIMITS(avx512)
QUIRE_DECLARE_LIMITS(avx512_vnni)
#undef QUIRE_DECLARE_LIMITS

}  // namespace quire::cpu
