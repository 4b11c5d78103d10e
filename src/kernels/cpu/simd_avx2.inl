// F32: 8 floats, AVX2 + FMA + F16C. Included inside the anonymous namespace of isa_avx2.cc; every
// simd_<level>.inl defines the same functions, documented here.

constexpr int kWidth = 8;
// Register tile of attention: kTileRows x kTileVectors accumulators, kTileVectors of B, one of A.
constexpr int kTileRows = 6;
constexpr int kTileVectors = 2;
using F32 = __m256;

QUIRE_INLINE F32 set1(float x) { return _mm256_set1_ps(x); }
QUIRE_INLINE F32 load(const float* p) { return _mm256_loadu_ps(p); }
QUIRE_INLINE void store(float* p, F32 v) { _mm256_storeu_ps(p, v); }
// Lanes [0, n) of a vector; the rest are 0 and their memory is not touched. 0 <= n <= kWidth.
QUIRE_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
QUIRE_INLINE F32 load_n(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
QUIRE_INLINE void store_n(float* p, F32 v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
QUIRE_INLINE float first(F32 v) { return _mm256_cvtss_f32(v); }

QUIRE_INLINE F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
QUIRE_INLINE F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
QUIRE_INLINE F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
QUIRE_INLINE F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
QUIRE_INLINE F32 sqrt(F32 a) { return _mm256_sqrt_ps(a); }
// b where either is NaN.
QUIRE_INLINE F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
QUIRE_INLINE F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
// a * b + c (generic: rounded twice).
QUIRE_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
// Bit i: a[i] > b[i].
QUIRE_INLINE uint32_t greater(F32 a, F32 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
// a where x < limit (false for NaN), else b.
QUIRE_INLINE F32 if_less(F32 x, F32 limit, F32 a, F32 b) {
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, limit, _CMP_LT_OQ));
}
// v in lanes [lo, hi), else other. lo and hi may lie outside [0, kWidth].
QUIRE_INLINE F32 lanes_between(F32 v, int lo, int hi, F32 other) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), lane),
                                             _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
  return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(inside));
}

// Lanes folded 4+4, 2+2, 1+1: lane i with lane i + half.
QUIRE_INLINE float fold_add(F32 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
QUIRE_INLINE float fold_max(F32 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// p * 2^n for n = t - kRound rounded to an integer in [-126, 127]; t = x + kRound.
QUIRE_INLINE F32 scale_by_power(F32 p, F32 t) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return mul(p, _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(127 << 23))));
}
// The same for n in [-150, 128]: in two steps, so that results may be denormal or infinite.
QUIRE_INLINE F32 scale_by_any_power(F32 p, F32 t) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000));
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
  return mul(mul(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

// kWidth elements of each KV type.
QUIRE_INLINE F32 load_kv(const float* p) { return load(p); }
QUIRE_INLINE F32 load_kv(const F16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
QUIRE_INLINE F32 load_kv(const BF16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
// Round to nearest even; f16 is saturated. Returns how many lanes were beyond the type's range.
QUIRE_INLINE int store_kv(float* p, F32 v) {
  store(p, v);
  return 0;
}
QUIRE_INLINE int store_kv(F16* p, F32 v) {
  const F32 limit = set1(65504.0F);
  const F32 magnitude = _mm256_andnot_ps(set1(-0.0F), v);
  const F32 inside = max(set1(-65504.0F), min(limit, v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(inside, 0));
  return __builtin_popcount(greater(magnitude, limit));
}
QUIRE_INLINE int store_kv(BF16* p, F32 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
  return 0;
}

QUIRE_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// vpmaddubsw, vpmaddwd, vpaddd: 32 products.
inline int64_t int8_at_full_speed(int64_t rounds) {
  constexpr int kChains = 12;
  volatile int input = 0x01010101;
  __m256i x = _mm256_set1_epi32(input);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      asm volatile("" : "+x"(x));  // or the products would be computed once
      const __m256i products = _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), ones);
      acc[c] = _mm256_add_epi32(acc[c], products);
    }
  }
  for (int c = 1; c < kChains; ++c) acc[0] = _mm256_add_epi32(acc[0], acc[c]);
  volatile int output = _mm_cvtsi128_si32(_mm256_castsi256_si128(acc[0]));
  (void)output;
  return rounds * kChains * 32 * 2;
}

// vpmaddwd, vpaddd: 16 products. Assembly for the reason given in vec_avx2.inl.
inline int64_t int16_at_full_speed(int64_t rounds) {
  constexpr int kChains = 12;
  const __m256i x = _mm256_set1_epi16(1);
  __m256i acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = _mm256_set1_epi32(c);
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) {
      __m256i product;
      asm volatile("vpmaddwd %[x], %[x], %[product]\n\tvpaddd %[product], %[sum], %[sum]"
                   : [sum] "+x"(acc[c]), [product] "=&x"(product)
                   : [x] "x"(x));
    }
  }
  return rounds * kChains * 16 * 2;
}
