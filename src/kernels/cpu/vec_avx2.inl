// 256-bit vectors under names that the width-independent kernels use (gemm_float.inl,
// gemm_madd.inl). Included inside an anonymous namespace.

#define QUIRE_INLINE static inline __attribute__((always_inline))

constexpr int kLanes = 8;           // 32-bit lanes of a vector
constexpr int kVecs = 32 / kLanes;  // vectors per 32 columns
using VI = __m256i;
using VF = __m256;

QUIRE_INLINE VI load_i(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
QUIRE_INLINE void store_i(void* p, VI v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
QUIRE_INLINE VI zero_i() { return _mm256_setzero_si256(); }
QUIRE_INLINE VI all_16(int16_t v) { return _mm256_set1_epi16(v); }
QUIRE_INLINE VI all_32(int32_t v) { return _mm256_set1_epi32(v); }
QUIRE_INLINE VI and_i(VI a, VI b) { return _mm256_and_si256(a, b); }
QUIRE_INLINE VI or_i(VI a, VI b) { return _mm256_or_si256(a, b); }
QUIRE_INLINE VI add_32(VI a, VI b) { return _mm256_add_epi32(a, b); }
QUIRE_INLINE VI sub_32(VI a, VI b) { return _mm256_sub_epi32(a, b); }
QUIRE_INLINE VI sub_16(VI a, VI b) { return _mm256_sub_epi16(a, b); }
QUIRE_INLINE VI mul_32(VI a, VI b) { return _mm256_mullo_epi32(a, b); }
QUIRE_INLINE VI madd_16(VI a, VI b) { return _mm256_madd_epi16(a, b); }
QUIRE_INLINE VI shift_left_32(VI v, int n) { return _mm256_sll_epi32(v, _mm_cvtsi32_si128(n)); }
QUIRE_INLINE VI shift_right_32(VI v, int n) { return _mm256_srl_epi32(v, _mm_cvtsi32_si128(n)); }
// In 16-bit lanes; to the left if n < 0.
template <int n>
QUIRE_INLINE VI shift_right_16(VI v) {
  if constexpr (n > 0) return _mm256_srli_epi16(v, n);
  if constexpr (n < 0) return _mm256_slli_epi16(v, -n);
  return v;
}

QUIRE_INLINE VF load_f(const float* p) { return _mm256_loadu_ps(p); }
QUIRE_INLINE void store_f(float* p, VF v) { _mm256_storeu_ps(p, v); }
QUIRE_INLINE VF zero_f() { return _mm256_setzero_ps(); }
QUIRE_INLINE VF all_f(float v) { return _mm256_set1_ps(v); }
QUIRE_INLINE VF add_f(VF a, VF b) { return _mm256_add_ps(a, b); }
QUIRE_INLINE VF mul_f(VF a, VF b) { return _mm256_mul_ps(a, b); }
QUIRE_INLINE VF fma_f(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
QUIRE_INLINE VF negate_f(VF v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }
QUIRE_INLINE VF to_float(VI v) { return _mm256_cvtepi32_ps(v); }

// kLanes consecutive f16, u8 or i8 as floats.
QUIRE_INLINE VF load_f16(const void* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
QUIRE_INLINE VF load_u8(const void* p) {
  return to_float(_mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
QUIRE_INLINE VF load_i8(const void* p) {
  return to_float(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}

// kLanes pairs of 16-bit floats: the first of each pair to *a, the second to *b.
QUIRE_INLINE void load_f16_pairs(const void* p, VF* a, VF* b) {
  const __m256i order = _mm256_setr_epi8(0,
                                         1,
                                         4,
                                         5,
                                         8,
                                         9,
                                         12,
                                         13,
                                         2,
                                         3,
                                         6,
                                         7,
                                         10,
                                         11,
                                         14,
                                         15,
                                         0,
                                         1,
                                         4,
                                         5,
                                         8,
                                         9,
                                         12,
                                         13,
                                         2,
                                         3,
                                         6,
                                         7,
                                         10,
                                         11,
                                         14,
                                         15);
  const __m256i v = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load_i(p), order), 0xd8);
  *a = _mm256_cvtph_ps(_mm256_castsi256_si128(v));
  *b = _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1));
}
QUIRE_INLINE void load_bf16_pairs(const void* p, VF* a, VF* b) {
  const __m256i v = load_i(p);
  *a = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
  *b = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(-65536)));
}

QUIRE_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
