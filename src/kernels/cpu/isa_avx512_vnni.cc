// What level "avx512_vnni" has of its own beside the matrix ops: the peak of vpdpbusd.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/limits.h"
#include "kernels/cpu/target_loops.h"

namespace quire::cpu::avx512_vnni {

int64_t limit_int8(int64_t rounds) {
  constexpr int kChains = 12;
  volatile int input = 0x01010101;
  const __m512i x = _mm512_set1_epi32(input);
  __m512i acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], x, x);
  }
  __m512i sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = _mm512_add_epi32(sum, acc[c]);
  volatile int output = _mm_cvtsi128_si32(_mm512_castsi512_si128(sum));
  (void)output;
  return rounds * kChains * 64 * 2;
}

// A 16-bit activation is two int8 planes: two vpdpbusd.
int64_t limit_int16(int64_t rounds) { return limit_int8(rounds) / 2; }

}  // namespace quire::cpu::avx512_vnni
