// Read and FMA at full speed, with the vectors of a level.

constexpr int64_t kReadAhead =
    4096;  // bytes of software prefetch: +5 % where the L2 prefetcher lags

inline uint32_t read_at_full_speed(const unsigned char* data, int64_t bytes) {
  const int64_t stream = bytes / 4;
  F32 acc[4] = {set1(0), set1(0), set1(0), set1(0)};
  for (int64_t i = 0; i < stream; i += 64) {
    QUIRE_UNROLL
    for (int s = 0; s < 4; ++s) {
      const unsigned char* p = data + s * stream + i;
      prefetch(p + kReadAhead);
      const float* line = reinterpret_cast<const float*>(p);
      QUIRE_UNROLL
      for (int j = 0; j < 16; j += kWidth) acc[s] = max(acc[s], load(line + j));
    }
  }
  return greater(max(max(acc[0], acc[1]), max(acc[2], acc[3])), set1(1.0F));
}

// 12 chains cover a latency of 4 cycles on 2 ports with a margin.
inline int64_t fma_at_full_speed(int64_t rounds) {
  constexpr int kChains = 12;
  volatile float input = 0.75F;
  const F32 x = set1(input);
  F32 acc[kChains];
  QUIRE_UNROLL
  for (int c = 0; c < kChains; ++c) acc[c] = set1(input + static_cast<float>(c));
  for (int64_t i = 0; i < rounds; ++i) {
    QUIRE_UNROLL
    for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], x, x);
  }
  F32 sum = acc[0];
  for (int c = 1; c < kChains; ++c) sum = add(sum, acc[c]);
  volatile float output = fold_add(sum);
  (void)output;
  return rounds * kChains * kWidth * 2;
}
