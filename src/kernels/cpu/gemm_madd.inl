// Integer activations as 16-bit integers, for levels without a byte dot product (AVX2, AVX-512):
// weights are widened to 16 bits and vpmaddwd sums pairs. Included inside an anonymous namespace
// after gemm_groups.inl; the level defines kIntRows: rows per tile, a power of two.
//
// A 32-bit lane of packed codes holds k = 4 t .. 4 t + 3 of one column. Masking and shifting it in
// 16-bit lanes gives the pairs (k, k + 2) and (k + 1, k + 3) without a shuffle; activations are
// stored in that order (codes_madd.inl):  group = 8 quads t of { x[4t], x[4t+2], x[4t+1], x[4t+3]
// }. The order inside a group does not matter: its sum is an exact integer.

// A K block in the order of vpmaddwd, 19 KiB: it stays in L1 while the rows pass.
struct UnpackedBlock {
  int16_t w[kBlockGroups * 1024];  // [group][16 pairs][32 columns][2], zero point subtracted
  BlockScales scales;
};

// Codes of quad t = s + 4 h (k = 4 t ..) in vector v: pairs (k, k + 2) and (k + 1, k + 3).
template <class R, int s, int h>
QUIRE_INLINE void codes_16(const unsigned char* record, int v, VI* w) {
  const unsigned char* at = record + v * kLanes * 4;
  if constexpr (R::kBits == 8) {
    const VI raw = load_i(at + 128 * (s + 4 * h));
    w[0] = and_i(raw, all_16(255));
    w[1] = shift_right_16<8>(raw);
    return;
  }
  const VI raw = load_i(at + 128 * s);
  w[0] = and_i(shift_right_16<4 * h>(raw), all_16(15));
  w[1] = h == 0 ? and_i(shift_right_16<8>(raw), all_16(15)) : shift_right_16<12>(raw);
  if constexpr (R::kBits == 5) {
    constexpr int t = s + 4 * h;
    const VI high = load_i(at + 512);
    w[0] = or_i(w[0], and_i(shift_right_16<t - 4>(high), all_16(16)));
    w[1] = or_i(w[1], and_i(shift_right_16<t + 4>(high), all_16(16)));
  }
  if constexpr (R::kBits == 6) {
    const VI high = load_i(at + 512 + 128 * h);
    w[0] = or_i(w[0], and_i(shift_right_16<2 * s - 4>(high), all_16(48)));
    w[1] = or_i(w[1], and_i(shift_right_16<2 * s + 4>(high), all_16(48)));
  }
}

// ---- More than four rows: unpack a K block once, then tiles of rows

template <class R, int s, int h>
QUIRE_INLINE void unpack_quad(const unsigned char* record, int v, int16_t* w) {
  VI pair[2];
  codes_16<R, s, h>(record, v, pair);
  const VI zero = all_16(R::kZero);
  int16_t* to = w + 128 * (s + 4 * h) + v * kLanes * 2;
  store_i(to, R::kZero ? sub_16(pair[0], zero) : pair[0]);
  store_i(to + 64, R::kZero ? sub_16(pair[1], zero) : pair[1]);
}

template <class R>
void unpack_block(const unsigned char* panel, int64_t g0, int64_t n, UnpackedBlock* out) {
  for (int64_t g = 0; g < n; ++g) {
    const RecordAt<R> at = record_at<R>(panel, g0 + g);
    int16_t* w = out->w + g * 1024;
    for (int v = 0; v < kVecs; ++v) {
      unpack_quad<R, 0, 0>(at.record, v, w);
      unpack_quad<R, 1, 0>(at.record, v, w);
      unpack_quad<R, 2, 0>(at.record, v, w);
      unpack_quad<R, 3, 0>(at.record, v, w);
      unpack_quad<R, 0, 1>(at.record, v, w);
      unpack_quad<R, 1, 1>(at.record, v, w);
      unpack_quad<R, 2, 1>(at.record, v, w);
      unpack_quad<R, 3, 1>(at.record, v, w);
    }
    unpack_scales<R>(at, g, &out->scales);
  }
}

// sum[M][2] += kPairs pairs of weights times the rows.
template <int M, int kPairs>
QUIRE_INLINE void add_pairs(const int16_t* w,
                            const unsigned char* x,
                            int64_t stride,
                            VI (*sum)[2]) {
#pragma GCC unroll 4
  for (int p = 0; p < kPairs; ++p) {
    const VI w0 = load_i(w + p * 64), w1 = load_i(w + p * 64 + 2 * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      int32_t pair;
      __builtin_memcpy(&pair, x + r * stride + 4 * p, 4);
      const VI b = all_32(pair);
      add_madd_16(&sum[r][0], w0, b);
      add_madd_16(&sum[r][1], w1, b);
    }
  }
}

// acc[M][32] += groups [g0, g0 + n) of rows [row, row + M).
template <int M, class Kind>
void integer_tile(
    const UnpackedBlock& block, int64_t g0, int64_t n, const Rows& rows, int64_t row, float* acc) {
  constexpr int kHalves = Kind::kPer16 ? 2 : 1;
  const int64_t stride = rows.layout.stride;
  for (int v = 0; v < kVecs; v += 2, acc += 2 * kLanes) {
    const int16_t* w = block.w + v * kLanes * 2;
    const float* scale = block.scales.scale + v * kLanes;
    const float* min = block.scales.min + v * kLanes;
    const unsigned char* x = rows.codes(row) + g0 * 64;
    PerRow group_scale = {rows.scale(row) + g0, stride / 4};
    PerRow fsum = {rows.fsum(row) + g0, stride / 4};
    const unsigned char* end = x + n * 64;
    for (; x != end; x += 64, w += 1024, scale += 64, min += 32) {
#pragma GCC unroll 2
      for (int h = 0; h < kHalves; ++h) {
        VI sum[M][2];
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) sum[r][0] = sum[r][1] = zero_i();
        add_pairs<M, 16 / kHalves>(w + h * 512, x + h * 32, stride, sum);
        const VF s0 = load_f(scale + 32 * h), s1 = load_f(scale + 32 * h + kLanes);
        add_sums<M, Kind::kInt8>(sum, s0, s1, group_scale, acc);
      }
      if constexpr (Kind::kMins) add_mins<M>(load_f(min), load_f(min + kLanes), fsum, acc);
      ++group_scale.data;
      ++fsum.data;
    }
  }
}

template <int M, class Kind>
void integer_tiles(const UnpackedBlock& block,
                   int64_t g0,
                   int64_t n,
                   const Rows& rows,
                   int64_t row,
                   int64_t m,
                   float* acc) {
  for (; m >= M; m -= M, row += M, acc += M * 32) {
    integer_tile<M, Kind>(block, g0, n, rows, row, acc);
  }
  if constexpr (M > 1) {
    if (m > 0) integer_tiles<M / 2, Kind>(block, g0, n, rows, row, m, acc);
  }
}

template <class R>
void integer_rows(const unsigned char* panel,
                  const Rows& rows,
                  int64_t row0,
                  int64_t m,
                  unsigned char* scratch,
                  float* acc) {
  UnpackedBlock& block = *reinterpret_cast<UnpackedBlock*>(scratch);
  for (int64_t i = 0; i < m * 32; ++i) acc[i] = 0.0f;
  for (int64_t g0 = 0; g0 < rows.layout.groups; g0 += kBlockGroups) {
    const int64_t rest = rows.layout.groups - g0;
    const int64_t n = rest < kBlockGroups ? rest : kBlockGroups;
    unpack_block<R>(panel, g0, n, &block);
    if (rows.type == ActivationType::kInt8) {
      integer_tiles<kIntRows, GroupKind<R::kHasMins, R::kPer16, true>>(
          block, g0, n, rows, row0, m, acc);
    } else {
      integer_tiles<kIntRows, GroupKind<R::kHasMins, R::kPer16, false>>(
          block, g0, n, rows, row0, m, acc);
    }
  }
}

// ---- Up to four rows: straight from the records, one pass over memory

template <class R, int M, int s, int h>
QUIRE_INLINE void add_quad(
    const unsigned char* record, int v, const unsigned char* x, int64_t stride, VI (*sum)[2]) {
  VI w[2][2];
  codes_16<R, s, h>(record, v, w[0]);
  codes_16<R, s, h>(record, v + 1, w[1]);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) {
      int32_t pair;
      __builtin_memcpy(&pair, x + r * stride + 4 * (2 * (s + 4 * h) + i), 4);
      const VI b = all_32(pair);
      add_madd_16(&sum[r][0], w[0][i], b);
      add_madd_16(&sum[r][1], w[1][i], b);
    }
  }
}

template <class R, int M, int h>
QUIRE_INLINE void add_half(
    const unsigned char* record, int v, const unsigned char* x, int64_t stride, VI (*sum)[2]) {
  add_quad<R, M, 0, h>(record, v, x, stride, sum);
  add_quad<R, M, 1, h>(record, v, x, stride, sum);
  add_quad<R, M, 2, h>(record, v, x, stride, sum);
  add_quad<R, M, 3, h>(record, v, x, stride, sum);
}

template <class R, int M>
void integer_small(const unsigned char* panel, const Rows& rows, float* acc) {
  constexpr int kAhead = 8;  // records
  const float one = 1.0f;    // kInt16 has no group scale, and multiplying by one changes nothing
  const bool int8 = rows.type == ActivationType::kInt8;
  const int64_t stride = rows.layout.stride / 4;
  for (int i = 0; i < M * 32; ++i) acc[i] = 0.0f;
  for (int64_t g = 0; g < rows.layout.groups; ++g) {
    const RecordAt<R> at = record_at<R>(panel, g);
    const unsigned char* x = rows.codes(0) + g * 64;
    const PerRow scale = int8 ? PerRow{rows.scale(0) + g, stride} : PerRow{&one, 0};
#pragma GCC unroll 20
    for (int line = 0; line < R::kBytes; line += 64) {
      prefetch(at.record + kAhead * R::kBytes + line);
    }
    for (int v = 0; v < kVecs; v += 2) {
      float* a = acc + v * kLanes;
      VI sum[M][2];
      start_sums<R, M>(rows, g, 0, sum);
      add_half<R, M, 0>(at.record, v, x, stride * 4, sum);
      if constexpr (R::kPer16) {
        add_sums<M, true>(sum, record_scale<R>(at, v, 0), record_scale<R>(at, v + 1, 0), scale, a);
        start_sums<R, M>(rows, g, 1, sum);
      }
      add_half<R, M, 1>(at.record, v, x, stride * 4, sum);
      add_sums<M, true>(sum, record_scale<R>(at, v, 1), record_scale<R>(at, v + 1, 1), scale, a);
      if constexpr (R::kHasMins) {
        add_mins<M>(record_min<R>(at, v), record_min<R>(at, v + 1), {rows.fsum(0) + g, stride}, a);
      }
    }
  }
}

template <class R>
void integer_small_rows(const unsigned char* panel, const Rows& rows, float* acc) {
  switch (rows.count) {
    case 1:
      return integer_small<R, 1>(panel, rows, acc);
    case 2:
      return integer_small<R, 2>(panel, rows, acc);
    case 3:
      return integer_small<R, 3>(panel, rows, acc);
    default:
      return integer_small<R, 4>(panel, rows, acc);
  }
}
