// Codes of one group of 32 in the order of gemm_madd.inl; q in increasing k.

void store_codes(const int32_t* q, ActivationType, unsigned char* to) {
  const __m256i swap = _mm256_setr_epi8(0,
                                        1,
                                        4,
                                        5,
                                        2,
                                        3,
                                        6,
                                        7,
                                        8,
                                        9,
                                        12,
                                        13,
                                        10,
                                        11,
                                        14,
                                        15,
                                        0,
                                        1,
                                        4,
                                        5,
                                        2,
                                        3,
                                        6,
                                        7,
                                        8,
                                        9,
                                        12,
                                        13,
                                        10,
                                        11,
                                        14,
                                        15);
  const __m256i* from = reinterpret_cast<const __m256i*>(q);
  for (int i = 0; i < 2; ++i) {
    const __m256i a = _mm256_loadu_si256(from + 2 * i), b = _mm256_loadu_si256(from + 2 * i + 1);
    const __m256i codes = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to) + i, _mm256_shuffle_epi8(codes, swap));
  }
}
