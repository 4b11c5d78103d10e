// KV element types, so that overloads tell f16 from bf16.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};
QUIRE_INLINE float widen(float x) { return x; }
QUIRE_INLINE float widen(F16 x) { return f16_to_f32(x.bits); }
QUIRE_INLINE float widen(BF16 x) { return bf16_to_f32(x.bits); }
