// Matrix ops for AVX-512 with VNNI. vpdpbusd multiplies unsigned weight codes by signed bytes and
// sums four products per lane: int16 activations are two planes of bytes, q = 256 hi + lo, and the
// sum of a group is 256 * (sum over hi) + (sum over lo) - zero * (sum of q), exact in int32. kInt8
// has one plane. Tiles of 8 rows by 32 columns; bound by 2 vpdpbusd a cycle. Floats as in
// gemm_avx512.cc.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/gemm_common.h"
#include "kernels/cpu/isa.h"
#include "kernels/formats/records.h"

namespace quire::cpu::avx512_vnni {
namespace {

constexpr int kFloatRows = 12;
constexpr int kIntRows = 8;  // a power of two

// clang-format off: each uses those above it
#include "kernels/cpu/gemm_rows.inl"
#include "kernels/cpu/vec_avx512.inl"
#include "kernels/cpu/gemm_groups.inl"
#include "kernels/cpu/gemm_float.inl"
// clang-format on

// A K block in the order of vpdpbusd, 11 KiB: it stays in L1 while the rows pass.
struct UnpackedBlock {
  unsigned char w[kBlockGroups * 1024];  // codes [group][8 steps][32 columns][4 k]
  BlockScales scales;
};

// Codes of step s (k = 4 s ..) in vector v.
template <class R, int s>
QUIRE_INLINE VI codes_8(const unsigned char* record, int v) {
  const unsigned char* at = record + v * kLanes * 4;
  if constexpr (R::kBits == 8) return load_i(at + 128 * s);
  const VI raw = load_i(at + 128 * (s % 4));
  VI q = and_i(shift_right_16<(s < 4 ? 0 : 4)>(raw), all_16(0x0f0f));
  if constexpr (R::kBits == 5) {
    q = or_i(q, and_i(shift_right_16<s - 4>(load_i(at + 512)), all_16(0x1010)));
  }
  if constexpr (R::kBits == 6) {
    const VI high = load_i(at + 512 + 128 * (s / 4));
    q = or_i(q, and_i(shift_right_16<2 * (s % 4) - 4>(high), all_16(0x3030)));
  }
  return q;
}

// Four consecutive bytes of a row in every lane.
QUIRE_INLINE VI all_bytes(const unsigned char* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return all_32(four);
}

// ---- More than four rows: unpack a K block once, then tiles of rows

template <class R>
void unpack_block(const unsigned char* panel, int64_t g0, int64_t n, UnpackedBlock* out) {
  for (int64_t g = 0; g < n; ++g) {
    const RecordAt<R> at = record_at<R>(panel, g0 + g);
    for (int v = 0; v < kVecs; ++v) {
      unsigned char* w = out->w + g * 1024 + v * kLanes * 4;
      store_i(w + 128 * 0, codes_8<R, 0>(at.record, v));
      store_i(w + 128 * 1, codes_8<R, 1>(at.record, v));
      store_i(w + 128 * 2, codes_8<R, 2>(at.record, v));
      store_i(w + 128 * 3, codes_8<R, 3>(at.record, v));
      store_i(w + 128 * 4, codes_8<R, 4>(at.record, v));
      store_i(w + 128 * 5, codes_8<R, 5>(at.record, v));
      store_i(w + 128 * 6, codes_8<R, 6>(at.record, v));
      store_i(w + 128 * 7, codes_8<R, 7>(at.record, v));
    }
    unpack_scales<R>(at, g, &out->scales);
  }
}

// sum[M][2] += kSteps steps of weights times one plane of the rows.
template <int M, int kSteps>
QUIRE_INLINE void dot_plane(const unsigned char* w,
                            const unsigned char* x,
                            int64_t stride,
                            VI (*sum)[2]) {
#pragma GCC unroll 8
  for (int s = 0; s < kSteps; ++s) {
    const VI w0 = load_i(w + 128 * s), w1 = load_i(w + 128 * s + 64);
#pragma GCC unroll 16
    for (int r = 0; r < M; ++r) {
      const VI b = all_bytes(x + r * stride + 4 * s);
      sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], w0, b);
      sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], w1, b);
    }
  }
}

// acc[M][32] += groups [g0, g0 + n) of rows [row, row + M).
template <class R, int M, bool kInt8>
void integer_tile(
    const UnpackedBlock& block, int64_t g0, int64_t n, const Rows& rows, int64_t row, float* acc) {
  constexpr int kHalves = R::kPer16 ? 2 : 1, kSteps = 8 / kHalves;
  const int64_t stride = rows.layout.stride;
  Rows tile = rows;
  tile.data = rows.codes(row);
  for (int64_t g = 0; g < n; ++g) {
    const unsigned char* x = tile.codes(0) + (g0 + g) * 64;
    for (int h = 0; h < kHalves; ++h) {
      VI sum[M][2], zeros[M][2];
#pragma GCC unroll 16
      for (int r = 0; r < M; ++r) sum[r][0] = sum[r][1] = zero_i();
      dot_plane<M, kSteps>(block.w + g * 1024 + h * 512, x + h * 16, stride, sum);
      if constexpr (!kInt8) {
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
          sum[r][0] = _mm512_slli_epi32(sum[r][0], 8);
          sum[r][1] = _mm512_slli_epi32(sum[r][1], 8);
        }
        dot_plane<M, kSteps>(block.w + g * 1024 + h * 512, x + 32 + h * 16, stride, sum);
      }
      if constexpr (R::kZero != 0) {
        start_sums<R, M>(tile, g0 + g, h, zeros);
#pragma GCC unroll 16
        for (int r = 0; r < M; ++r) {
          sum[r][0] = add_32(sum[r][0], zeros[r][0]);
          sum[r][1] = add_32(sum[r][1], zeros[r][1]);
        }
      }
      const float* scale = block.scales.scale + g * 64 + h * 32;
      add_sums<M, kInt8>(
          sum, load_f(scale), load_f(scale + kLanes), {tile.scale(0) + g0 + g, stride / 4}, acc);
    }
    if constexpr (R::kHasMins) {
      const float* min = block.scales.min + g * 32;
      add_mins<M>(load_f(min), load_f(min + kLanes), {tile.fsum(0) + g0 + g, stride / 4}, acc);
    }
  }
}

template <class R, int M, bool kInt8>
void integer_tiles(const UnpackedBlock& block,
                   int64_t g0,
                   int64_t n,
                   const Rows& rows,
                   int64_t row,
                   int64_t m,
                   float* acc) {
  for (; m >= M; m -= M, row += M, acc += M * 32) {
    integer_tile<R, M, kInt8>(block, g0, n, rows, row, acc);
  }
  if constexpr (M > 1) {
    if (m > 0) integer_tiles<R, M / 2, kInt8>(block, g0, n, rows, row, m, acc);
  }
}

// A tile depends on the format through zero point, mins and halves alone: formats that agree in
// them share its code.
template <class R>
using TileKind = formats::Record<DType::kI8, 8, R::kZero, R::kScales>;

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
      integer_tiles<TileKind<R>, kIntRows, true>(block, g0, n, rows, row0, m, acc);
    } else {
      integer_tiles<TileKind<R>, kIntRows, false>(block, g0, n, rows, row0, m, acc);
    }
  }
}

// ---- Up to four rows: straight from the records, one pass over memory

template <class R, int M, bool kInt8, int s>
QUIRE_INLINE void add_step(const unsigned char* record,
                           const unsigned char* x,
                           int64_t stride,
                           VI (*high)[2],
                           VI (*low)[2]) {
  const VI w0 = codes_8<R, s>(record, 0), w1 = codes_8<R, s>(record, 1);
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    const VI b = all_bytes(x + r * stride + 4 * s);
    high[r][0] = _mm512_dpbusd_epi32(high[r][0], w0, b);
    high[r][1] = _mm512_dpbusd_epi32(high[r][1], w1, b);
    if constexpr (!kInt8) {
      const VI c = all_bytes(x + r * stride + 32 + 4 * s);
      low[r][0] = _mm512_dpbusd_epi32(low[r][0], w0, c);
      low[r][1] = _mm512_dpbusd_epi32(low[r][1], w1, c);
    }
  }
}

// sum = dot products of half h of a group (of both halves if kBoth), zero point included.
template <class R, int M, bool kInt8, int h, bool kBoth>
QUIRE_INLINE void dot_record(const unsigned char* record,
                             const Rows& rows,
                             int64_t g,
                             VI (*sum)[2]) {
  const unsigned char* x = rows.codes(0) + g * 64;
  const int64_t stride = rows.layout.stride;
  VI high[M][2];
  start_sums<R, M>(rows, g, h, sum);
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) high[r][0] = high[r][1] = zero_i();
  VI(*first)[2] = kInt8 ? sum : high;
  add_step<R, M, kInt8, 4 * h>(record, x, stride, first, sum);
  add_step<R, M, kInt8, 4 * h + 1>(record, x, stride, first, sum);
  add_step<R, M, kInt8, 4 * h + 2>(record, x, stride, first, sum);
  add_step<R, M, kInt8, 4 * h + 3>(record, x, stride, first, sum);
  if constexpr (kBoth) {
    add_step<R, M, kInt8, 4>(record, x, stride, first, sum);
    add_step<R, M, kInt8, 5>(record, x, stride, first, sum);
    add_step<R, M, kInt8, 6>(record, x, stride, first, sum);
    add_step<R, M, kInt8, 7>(record, x, stride, first, sum);
  }
  if constexpr (!kInt8) {
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) {
      sum[r][0] = add_32(sum[r][0], _mm512_slli_epi32(high[r][0], 8));
      sum[r][1] = add_32(sum[r][1], _mm512_slli_epi32(high[r][1], 8));
    }
  }
}

template <class R, int M, bool kInt8>
void integer_small(const unsigned char* panel, const Rows& rows, float* acc) {
  constexpr int kAhead = 8;  // records
  const int64_t stride = rows.layout.stride / 4;
  for (int i = 0; i < M * 32; ++i) acc[i] = 0.0f;
  for (int64_t g = 0; g < rows.layout.groups; ++g) {
    const RecordAt<R> at = record_at<R>(panel, g);
    const PerRow scale = {rows.scale(0) + g, stride};
#pragma GCC unroll 20
    for (int line = 0; line < R::kBytes; line += 64) {
      prefetch(at.record + kAhead * R::kBytes + line);
    }
    VI sum[M][2];
    dot_record<R, M, kInt8, 0, !R::kPer16>(at.record, rows, g, sum);
    add_sums<M, kInt8>(sum, record_scale<R>(at, 0, 0), record_scale<R>(at, 1, 0), scale, acc);
    if constexpr (R::kPer16) {
      dot_record<R, M, kInt8, 1, false>(at.record, rows, g, sum);
      add_sums<M, kInt8>(sum, record_scale<R>(at, 0, 1), record_scale<R>(at, 1, 1), scale, acc);
    }
    if constexpr (R::kHasMins) {
      add_mins<M>(record_min<R>(at, 0), record_min<R>(at, 1), {rows.fsum(0) + g, stride}, acc);
    }
  }
}

template <class R, bool kInt8>
void integer_small_m(const unsigned char* panel, const Rows& rows, float* acc) {
  switch (rows.count) {
    case 1:
      return integer_small<R, 1, kInt8>(panel, rows, acc);
    case 2:
      return integer_small<R, 2, kInt8>(panel, rows, acc);
    case 3:
      return integer_small<R, 3, kInt8>(panel, rows, acc);
    default:
      return integer_small<R, 4, kInt8>(panel, rows, acc);
  }
}

template <class R>
void integer_small_rows(const unsigned char* panel, const Rows& rows, float* acc) {
  if (rows.type == ActivationType::kInt8) {
    integer_small_m<R, true>(panel, rows, acc);
  } else {
    integer_small_m<R, false>(panel, rows, acc);
  }
}

// clang-format off: uses the kernels above
#include "kernels/cpu/gemm_dispatch.inl"
#include "kernels/cpu/gemm_driver.inl"
// clang-format on

}  // namespace

void linear(const ExecContext& exec, const LinearArgs& args) { run_linear(exec, args); }
void embedding(const ExecContext& exec, const EmbeddingArgs& args) { run_embedding(exec, args); }

}  // namespace quire::cpu::avx512_vnni
