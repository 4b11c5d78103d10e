// Full unrolling of a loop with constant bounds, so that small arrays of vectors live in registers.
#pragma once

#if defined(__clang__)
#define QUIRE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QUIRE_UNROLL _Pragma("GCC unroll 16")
#endif
#define QUIRE_INLINE inline __attribute__((always_inline))
// After a lambda's parameters: always inlined.
#define QUIRE_LAMBDA __attribute__((always_inline))
