// F32: 8 floats in plain C++ with the compiler's vector types, for any processor. fma rounds twice.
// The functions are documented in simd_avx2.inl.

constexpr int kWidth = 8;
constexpr int kTileRows = 2;  // 16 registers of 4 floats on SSE2
constexpr int kTileVectors = 2;
using F32 = float __attribute__((vector_size(32)));
using I32 = int32_t __attribute__((vector_size(32)));
using U32 = uint32_t __attribute__((vector_size(32)));
using U16 = uint16_t __attribute__((vector_size(16)));

constexpr I32 kLane = {0, 1, 2, 3, 4, 5, 6, 7};

template <class To, class From>
QUIRE_INLINE To bits_as(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

QUIRE_INLINE F32 set1(float x) { return F32{x, x, x, x, x, x, x, x}; }
QUIRE_INLINE I32 set1i(int32_t x) { return I32{x, x, x, x, x, x, x, x}; }
QUIRE_INLINE F32 load(const float* p) {
  F32 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
QUIRE_INLINE void store(float* p, F32 v) { __builtin_memcpy(p, &v, sizeof(v)); }
QUIRE_INLINE F32 load_n(const float* p, int n) {
  F32 v = set1(0);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
QUIRE_INLINE void store_n(float* p, F32 v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
QUIRE_INLINE float first(F32 v) { return v[0]; }

QUIRE_INLINE F32 select(I32 mask, F32 a, F32 b) {
  return bits_as<F32>((bits_as<I32>(a) & mask) | (bits_as<I32>(b) & ~mask));
}
QUIRE_INLINE F32 add(F32 a, F32 b) { return a + b; }
QUIRE_INLINE F32 sub(F32 a, F32 b) { return a - b; }
QUIRE_INLINE F32 mul(F32 a, F32 b) { return a * b; }
QUIRE_INLINE F32 div(F32 a, F32 b) { return a / b; }
QUIRE_INLINE F32 sqrt(F32 a) {
  for (int i = 0; i < kWidth; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
QUIRE_INLINE F32 max(F32 a, F32 b) { return select(a > b, a, b); }
QUIRE_INLINE F32 min(F32 a, F32 b) { return select(a < b, a, b); }
QUIRE_INLINE F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
QUIRE_INLINE uint32_t greater(F32 a, F32 b) {
  const I32 mask = a > b;
  uint32_t bits = 0;
  for (int i = 0; i < kWidth; ++i) bits |= static_cast<uint32_t>(mask[i] & 1) << i;
  return bits;
}
QUIRE_INLINE F32 if_less(F32 x, F32 limit, F32 a, F32 b) { return select(x < limit, a, b); }
QUIRE_INLINE F32 lanes_between(F32 v, int lo, int hi, F32 other) {
  return select((kLane >= set1i(lo)) & (kLane < set1i(hi)), v, other);
}

QUIRE_INLINE float fold_add(F32 v) {
  for (int half = 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] = v[i] + v[i + half];
  }
  return v[0];
}
QUIRE_INLINE float fold_max(F32 v) {
  for (int half = 4; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  }
  return v[0];
}

QUIRE_INLINE F32 scale_by_power(F32 p, F32 t) {
  const U32 n = bits_as<U32>(t) << 23;
  return p * bits_as<F32>(n + bits_as<U32>(set1i(127 << 23)));
}
QUIRE_INLINE F32 scale_by_any_power(F32 p, F32 t) {
  const I32 n = bits_as<I32>(bits_as<U32>(t) - bits_as<U32>(set1i(0x4b400000)));
  const I32 half = n >> 1;
  const F32 a = bits_as<F32>((half + set1i(127)) << 23);
  const F32 b = bits_as<F32>((n - half + set1i(127)) << 23);
  return p * a * b;
}

QUIRE_INLINE U32 load_u16(const void* p) {
  U16 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return __builtin_convertvector(v, U32);
}
QUIRE_INLINE F32 load_kv(const float* p) { return load(p); }
QUIRE_INLINE F32 load_kv(const F16* p) {
  const U32 h = load_u16(p);
  const U32 magnitude = (h & 0x7fff) << 13;
  const U32 finite = bits_as<U32>(bits_as<F32>(magnitude) * 0x1p112F);
  const U32 special = bits_as<U32>(magnitude >= 0x0f800000U) & 0x7f800000U;  // inf and NaN
  return bits_as<F32>(finite | special | (h & 0x8000) << 16);
}
QUIRE_INLINE F32 load_kv(const BF16* p) { return bits_as<F32>(load_u16(p) << 16); }
QUIRE_INLINE int store_kv(float* p, F32 v) {
  store(p, v);
  return 0;
}
QUIRE_INLINE int store_kv(F16* p, F32 v) {
  int overflows = 0;
  for (int i = 0; i < kWidth; ++i) {
    float x = v[i];
    if (x > 65504.0F || x < -65504.0F) {
      x = x > 0 ? 65504.0F : -65504.0F;
      ++overflows;
    }
    p[i].bits = f32_to_f16(x);
  }
  return overflows;
}
QUIRE_INLINE int store_kv(BF16* p, F32 v) {
  for (int i = 0; i < kWidth; ++i) p[i].bits = f32_to_bf16(v[i]);
  return 0;
}

QUIRE_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

// Integer products summed in 32 bits over arrays in L1: what a compiler makes of plain loops.
template <class X>
int64_t products_at_full_speed(int64_t rounds) {
  constexpr int kCount = 256;
  uint8_t weights[kCount];
  X x[kCount];
  __builtin_memset(weights, 1, sizeof(weights));
  __builtin_memset(x, 1, sizeof(x));
  uint32_t sum = 0;  // wraps
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : : "r"(weights), "r"(x) : "memory");
    int32_t part = 0;
    for (int j = 0; j < kCount; ++j) part += weights[j] * x[j];
    sum += static_cast<uint32_t>(part);
  }
  volatile uint32_t output = sum;
  (void)output;
  return rounds * kCount * 2;
}
inline int64_t int8_at_full_speed(int64_t rounds) { return products_at_full_speed<int8_t>(rounds); }
inline int64_t int16_at_full_speed(int64_t rounds) {
  return products_at_full_speed<int16_t>(rounds);
}
