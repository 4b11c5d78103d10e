// F32: 16 floats, AVX-512 F/BW/DQ/VL. The functions are documented in simd_avx2.inl.

constexpr int kWidth = 16;
constexpr int kTileRows = 6;
constexpr int kTileVectors = 4;
using F32 = __m512;

QUIRE_INLINE F32 set1(float x) { return _mm512_set1_ps(x); }
QUIRE_INLINE F32 load(const float* p) { return _mm512_loadu_ps(p); }
QUIRE_INLINE void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
QUIRE_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1U << n) - 1); }
QUIRE_INLINE F32 load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
QUIRE_INLINE void store_n(float* p, F32 v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
QUIRE_INLINE float first(F32 v) { return _mm512_cvtss_f32(v); }

QUIRE_INLINE F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
QUIRE_INLINE F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
QUIRE_INLINE F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
QUIRE_INLINE F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
QUIRE_INLINE F32 sqrt(F32 a) { return _mm512_sqrt_ps(a); }
QUIRE_INLINE F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
QUIRE_INLINE F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
QUIRE_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
QUIRE_INLINE uint32_t greater(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
QUIRE_INLINE F32 if_less(F32 x, F32 limit, F32 a, F32 b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), b, a);
}
QUIRE_INLINE F32 lanes_between(F32 v, int lo, int hi, F32 other) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __mmask16 inside =
      static_cast<__mmask16>(_mm512_cmple_epi32_mask(_mm512_set1_epi32(lo), lane) &
                             _mm512_cmpgt_epi32_mask(_mm512_set1_epi32(hi), lane));
  return _mm512_mask_blend_ps(inside, other, v);
}

// Lanes folded 8+8, 4+4, 2+2, 1+1.
QUIRE_INLINE float fold_add(F32 v) {
  const __m256 h = _mm256_add_ps(_mm512_extractf32x8_ps(v, 0), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
QUIRE_INLINE float fold_max(F32 v) {
  const __m256 h = _mm256_max_ps(_mm512_extractf32x8_ps(v, 0), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

QUIRE_INLINE F32 scale_by_any_power(F32 p, F32 t) {
  return _mm512_scalef_ps(p, sub(t, set1(0x1.8p23F)));
}
QUIRE_INLINE F32 scale_by_power(F32 p, F32 t) { return scale_by_any_power(p, t); }

QUIRE_INLINE F32 load_kv(const float* p) { return load(p); }
QUIRE_INLINE F32 load_kv(const F16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
QUIRE_INLINE F32 load_kv(const BF16* p) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
QUIRE_INLINE int store_kv(float* p, F32 v) {
  store(p, v);
  return 0;
}
QUIRE_INLINE int store_kv(F16* p, F32 v) {
  const F32 limit = set1(65504.0F);
  const F32 inside = max(set1(-65504.0F), min(limit, v));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(inside, 0));
  return __builtin_popcount(greater(_mm512_abs_ps(v), limit));
}
QUIRE_INLINE int store_kv(BF16* p, F32 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i high = _mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(high));
  return 0;
}

QUIRE_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// vpmaddubsw, vpmaddwd, vpaddd: 64 products.
inline int64_t int8_at_full_speed(int64_t rounds) {
  constexpr int kChains = 12;
  volatile int input = 0x01010101;
  __m512i x = _mm512_set1_epi32(input);
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+v"(x));  // or the products would be computed once
      const __m512i products = _mm512_madd_epi16(_mm512_maddubs_epi16(x, x), ones);
      acc[c] = _mm512_add_epi32(acc[c], products);
    }
  }
  for (int c = 1; c < kChains; ++c) acc[0] = _mm512_add_epi32(acc[0], acc[c]);
  volatile int output = _mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0]));
  (void)output;
  return rounds * kChains * 64 * 2;
}

// vpmaddwd, vpaddd: 32 products. Assembly for the reason given in vec_avx512.inl.
inline int64_t int16_at_full_speed(int64_t rounds) {
  constexpr int kChains = 12;
  const __m512i x = _mm512_set1_epi16(1);
  __m512i acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      __m512i product;
      asm volatile("vpmaddwd %[x], %[x], %[product]\n\tvpaddd %[product], %[sum], %[sum]"
                   : [sum] "+v"(acc[c]), [product] "=&v"(product)
                   : [x] "v"(x));
    }
  }
  return rounds * kChains * 32 * 2;
}
