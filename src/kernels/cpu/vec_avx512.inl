// 512-bit vectors under the names of vec_avx2.inl. Included inside an anonymous namespace.

#define QUIRE_INLINE static inline __attribute__((always_inline))

constexpr int kLanes = 16;          // 32-bit lanes of a vector
constexpr int kVecs = 32 / kLanes;  // vectors per 32 columns
using VI = __m512i;
using VF = __m512;

QUIRE_INLINE VI load_i(const void* p) { return _mm512_loadu_si512(p); }
QUIRE_INLINE void store_i(void* p, VI v) { _mm512_storeu_si512(p, v); }
QUIRE_INLINE VI zero_i() { return _mm512_setzero_si512(); }
QUIRE_INLINE VI all_16(int16_t v) { return _mm512_set1_epi16(v); }
QUIRE_INLINE VI all_32(int32_t v) { return _mm512_set1_epi32(v); }
QUIRE_INLINE VI and_i(VI a, VI b) { return _mm512_and_si512(a, b); }
QUIRE_INLINE VI or_i(VI a, VI b) { return _mm512_or_si512(a, b); }
QUIRE_INLINE VI add_32(VI a, VI b) { return _mm512_add_epi32(a, b); }
QUIRE_INLINE VI sub_32(VI a, VI b) { return _mm512_sub_epi32(a, b); }
QUIRE_INLINE VI sub_16(VI a, VI b) { return _mm512_sub_epi16(a, b); }
QUIRE_INLINE VI mul_32(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
QUIRE_INLINE VI madd_16(VI a, VI b) { return _mm512_madd_epi16(a, b); }
QUIRE_INLINE VI shift_left_32(VI v, int n) { return _mm512_sll_epi32(v, _mm_cvtsi32_si128(n)); }
QUIRE_INLINE VI shift_right_32(VI v, int n) { return _mm512_srl_epi32(v, _mm_cvtsi32_si128(n)); }
// In 16-bit lanes; to the left if n < 0.
template <int n>
QUIRE_INLINE VI shift_right_16(VI v) {
  if constexpr (n > 0) return _mm512_srli_epi16(v, n);
  if constexpr (n < 0) return _mm512_slli_epi16(v, -n);
  return v;
}

QUIRE_INLINE VF load_f(const float* p) { return _mm512_loadu_ps(p); }
QUIRE_INLINE void store_f(float* p, VF v) { _mm512_storeu_ps(p, v); }
QUIRE_INLINE VF zero_f() { return _mm512_setzero_ps(); }
QUIRE_INLINE VF all_f(float v) { return _mm512_set1_ps(v); }
QUIRE_INLINE VF add_f(VF a, VF b) { return _mm512_add_ps(a, b); }
QUIRE_INLINE VF mul_f(VF a, VF b) { return _mm512_mul_ps(a, b); }
QUIRE_INLINE VF fma_f(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
QUIRE_INLINE VF negate_f(VF v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }
QUIRE_INLINE VF to_float(VI v) { return _mm512_cvtepi32_ps(v); }

// kLanes consecutive f16, u8 or i8 as floats.
QUIRE_INLINE VF load_f16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
QUIRE_INLINE VF load_u8(const void* p) {
  return to_float(_mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
QUIRE_INLINE VF load_i8(const void* p) {
  return to_float(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}

// kLanes pairs of 16-bit floats: the first of each pair to *a, the second to *b.
QUIRE_INLINE void load_f16_pairs(const void* p, VF* a, VF* b) {
  const __m512i v = load_i(p);
  *a = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
  *b = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
}
QUIRE_INLINE void load_bf16_pairs(const void* p, VF* a, VF* b) {
  const __m512i v = load_i(p);
  *a = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  *b = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(-65536)));
}

QUIRE_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
