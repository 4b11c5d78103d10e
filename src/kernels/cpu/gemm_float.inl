// f32 activations, on any vector width: weights as f32, one fused multiply-add per product, k
// increasing. Included inside an anonymous namespace after gemm_groups.inl; the level defines
// kFloatRows: rows per tile.

// Codes of k = 4 s + j, one per 32-bit lane.
template <class R>
QUIRE_INLINE VI codes_32(const unsigned char* record, int v, int s, int j) {
  const unsigned char* at = record + v * kLanes * 4;
  if constexpr (R::kBits == 8) {
    return and_i(shift_right_32(load_i(at + 128 * s), 8 * j), all_32(255));
  }
  VI q = and_i(shift_right_32(load_i(at + 128 * (s % 4)), 8 * j + (s < 4 ? 0 : 4)), all_32(15));
  if constexpr (R::kBits == 5) {
    const VI high = shift_right_32(load_i(at + 512), 8 * j + s);
    q = or_i(q, shift_left_32(and_i(high, all_32(1)), 4));
  }
  if constexpr (R::kBits == 6) {
    const VI high = shift_right_32(load_i(at + 512 + 128 * (s / 4)), 8 * j + 2 * (s % 4));
    q = or_i(q, shift_left_32(and_i(high, all_32(3)), 4));
  }
  return q;
}

// One group as f32 [32 k][32 columns]: scale * (q - zero), then + min, each rounded, as in dequant.
template <class R>
void dequantize_group(const unsigned char* panel, int64_t g, float* out) {
  const RecordAt<R> at = record_at<R>(panel, g);
  for (int v = 0; v < kVecs; ++v) {
    for (int s = 0; s < 8; ++s) {
      const VF scale = record_scale<R>(at, v, s / 4);
      for (int j = 0; j < 4; ++j) {
        const VI q = sub_32(codes_32<R>(at.record, v, s, j), all_32(R::kZero));
        VF w = mul_f(scale, to_float(q));
        if constexpr (R::kHasMins) w = add_f(w, record_min<R>(at, v));
        store_f(out + 32 * (4 * s + j) + v * kLanes, w);
      }
    }
  }
}

// Weights of k (and k + 1 for the 16-bit types, which stand in pairs) in the columns of vector v.
template <DType type>
QUIRE_INLINE void load_weights(const unsigned char* panel, int64_t k, int v, VF* w) {
  if constexpr (type == DType::kF32) {
    w[0] = load_f(reinterpret_cast<const float*>(panel) + k * 32 + v * kLanes);
  } else if constexpr (type == DType::kF16) {
    load_f16_pairs(panel + k * 64 + v * kLanes * 4, w, w + 1);
  } else {
    load_bf16_pairs(panel + k * 64 + v * kLanes * 4, w, w + 1);
  }
}

// k0 <= k < k0 + n of a 16-bit panel as f32 [n rounded up to 2][32].
template <DType type>
void widen(const unsigned char* panel, int64_t k0, int64_t n, float* out) {
  for (int64_t k = 0; k < n; k += 2, out += 64) {
    for (int v = 0; v < kVecs; ++v) {
      VF w[2];
      load_weights<type>(panel, k0 + k, v, w);
      store_f(out + v * kLanes, w[0]);
      store_f(out + 32 + v * kLanes, w[1]);
    }
  }
}

// acc[M][32] += x[M][n] w[n][32].
template <int M>
void float_tile(const float* w, int64_t n, const float* x, int64_t stride, float* acc) {
  for (int v = 0; v < kVecs; v += 2) {
    VF a[M][2];
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      a[r][0] = load_f(acc + 32 * r + v * kLanes);
      a[r][1] = load_f(acc + 32 * r + v * kLanes + kLanes);
    }
    for (int64_t k = 0; k < n; ++k) {
      const VF w0 = load_f(w + 32 * k + v * kLanes);
      const VF w1 = load_f(w + 32 * k + v * kLanes + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) {
        const VF b = all_f(x[r * stride + k]);
        a[r][0] = fma_f(b, w0, a[r][0]);
        a[r][1] = fma_f(b, w1, a[r][1]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      store_f(acc + 32 * r + v * kLanes, a[r][0]);
      store_f(acc + 32 * r + v * kLanes + kLanes, a[r][1]);
    }
  }
}

template <int M>
void float_tiles(const float* w, int64_t n, const float* x, int64_t stride, int64_t m, float* acc) {
  for (; m >= M; m -= M, x += M * stride, acc += M * 32) float_tile<M>(w, n, x, stride, acc);
  if constexpr (M > 1) {
    if (m > 0) float_tiles<M - 1>(w, n, x, stride, m, acc);
  }
}

// acc = rows [row0, row0 + m); the panel becomes f32 once per K block.
void float_rows(DType type,
                const unsigned char* panel,
                const Rows& rows,
                int64_t row0,
                int64_t m,
                unsigned char* scratch,
                float* acc) {
  for (int64_t i = 0; i < m * 32; ++i) acc[i] = 0.0f;
  float* unpacked = reinterpret_cast<float*>(scratch);
  const int64_t stride = rows.layout.stride / 4;
  for (int64_t k0 = 0; k0 < rows.cols; k0 += kBlockK) {
    const int64_t n = rows.cols - k0 < kBlockK ? rows.cols - k0 : kBlockK;
    const float* w = unpacked;
    if (type == DType::kF32) {
      w = reinterpret_cast<const float*>(panel) + k0 * 32;
    } else if (type == DType::kF16) {
      widen<DType::kF16>(panel, k0, n, unpacked);
    } else if (type == DType::kBF16) {
      widen<DType::kBF16>(panel, k0, n, unpacked);
    } else {
      for (int64_t g = 0; g < n / 32; ++g) {
#define QUIRE_DEQUANTIZE(R) dequantize_group<R>(panel, k0 / 32 + g, unpacked + g * 1024)
        QUIRE_FOR_RECORD(type, QUIRE_DEQUANTIZE)
#undef QUIRE_DEQUANTIZE
      }
    }
    float_tiles<kFloatRows>(w, n, rows.floats(row0) + k0, stride, m, acc);
  }
}

// ---- Up to four rows: float weights straight from the panel, one pass over memory

// 32 k at a time: with one or two rows all 32 columns are in registers, with more each half in
// turn (the second finds its lines in L1).
template <DType type, int M>
void float_small(const unsigned char* panel, const Rows& rows, float* acc) {
  constexpr int kStep = type == DType::kF32 ? 1 : 2;
  constexpr int kAhead = type == DType::kF32 ? 8192 : 4096;  // bytes
  constexpr int kGroup = M <= 2 ? kVecs : 2;                 // vectors at a time
  for (int i = 0; i < M * 32; ++i) acc[i] = 0.0f;
  const int64_t stride = rows.layout.stride / 4;
  for (int64_t k0 = 0; k0 < rows.cols; k0 += 32) {
    const int64_t end = rows.cols - k0 < 32 ? rows.cols : k0 + 32;
    for (int v0 = 0; v0 < kVecs; v0 += kGroup) {
      VF a[M][kGroup];
#pragma GCC unroll 16
      for (int i = 0; i < M * kGroup; ++i) {
        a[i / kGroup][i % kGroup] = load_f(acc + 32 * (i / kGroup) + (v0 + i % kGroup) * kLanes);
      }
      for (int64_t k = k0; k < end; k += kStep) {
        const unsigned char* ahead = panel + k / kStep * 128 + kAhead;
        if (v0 == 0) {
          prefetch(ahead);
          prefetch(ahead + 64);
        }
        VF w[kGroup][2];
#pragma GCC unroll 4
        for (int v = 0; v < kGroup; ++v) load_weights<type>(panel, k, v0 + v, w[v]);
#pragma GCC unroll 2
        for (int i = 0; i < kStep; ++i) {
#pragma GCC unroll 4
          for (int r = 0; r < M; ++r) {
            const VF b = all_f(rows.floats(0)[r * stride + k + i]);
#pragma GCC unroll 4
            for (int v = 0; v < kGroup; ++v) a[r][v] = fma_f(b, w[v][i], a[r][v]);
          }
        }
      }
#pragma GCC unroll 16
      for (int i = 0; i < M * kGroup; ++i) {
        store_f(acc + 32 * (i / kGroup) + (v0 + i % kGroup) * kLanes, a[i / kGroup][i % kGroup]);
      }
    }
  }
}

template <DType type>
void float_small_m(const unsigned char* panel, const Rows& rows, float* acc) {
  switch (rows.count) {
    case 1:
      return float_small<type, 1>(panel, rows, acc);
    case 2:
      return float_small<type, 2>(panel, rows, acc);
    case 3:
      return float_small<type, 3>(panel, rows, acc);
    default:
      return float_small<type, 4>(panel, rows, acc);
  }
}

void float_small_rows(DType type, const unsigned char* panel, const Rows& rows, float* acc) {
  if (type == DType::kF32) return float_small_m<DType::kF32>(panel, rows, acc);
  if (type == DType::kF16) return float_small_m<DType::kF16>(panel, rows, acc);
  float_small_m<DType::kBF16>(panel, rows, acc);
}
