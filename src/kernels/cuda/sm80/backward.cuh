// FlashAttention-2 backward (arXiv 2307.08691, algorithm 2) with mma.sync. With P = softmax(S), D =
// rowsum(dO * O):
//   dV = P^T dO      dS = P * (dO V^T - D)      dK = scale dS^T Q      dQ = scale dS K
//
// dkdv_kernel: a CTA owns kN keys of one KV head and walks over the queries of all heads of the
// group, kM at a time.
//   The warps of a group own 32 keys, so that every fragment of the other operand feeds two
//   products. Each computes S^T and dP^T for its part of the queries, and dV and dK for its part of
//   the columns: P^T and dS^T of its own queries are at once A operands, those of the others come
//   through shared memory, where dS lies anyway for dQ, whose partial sums are added atomically in
//   f32.
// The deterministic variant leaves dQ to backward_dq.cuh.
#pragma once

#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/sm80/backward.h"
#include "kernels/cuda/sm80/backward_rows.cuh"
#include "kernels/cuda/sm80/backward_traits.cuh"
#include "kernels/cuda/softmax.cuh"

namespace quire::cuda::sm80 {

template <typename Traits>
struct DkdvCta {
  using T = typename Traits::T;
  static constexpr int kM = Traits::kM, kN = Traits::kN, kD = Traits::kD;
  static constexpr int kQueries = Traits::kQueries, kSteps = kQueries / 16;
  static constexpr bool kWholeSlabs = Traits::kColumns % 64 == 0;
  const QuireAttentionArgs& a;
  const BackwardParams& g;
  const Sequence& s;
  int key0;                          // first key of the CTA
  int row0, query0, column0;         // of the warp: keys, queries of a block, columns of dK and dV
  uint32_t k, v, queries, p, stats;  // shared: tiles, and 2 x (lse, delta)

  __device__ DkdvCta(const QuireAttentionArgs& args,
                     const BackwardParams& params,
                     const Sequence& sequence,
                     uint32_t base)
      : a(args), g(params), s(sequence), key0(static_cast<int>(blockIdx.x) * kN) {
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), part = warp / Traits::kGroups;
    row0 = warp % Traits::kGroups * 32;
    query0 = part * Traits::kQueries;
    column0 = part * Traits::kColumns;
    k = base;
    v = k + Traits::kKeyBytes;
    queries = v + Traits::kKeyBytes;
    p = queries + 4 * Traits::kQueryBytes;
    stats = p + 3 * Traits::kScoreBytes;
  }

  __device__ uint32_t q_tile(int stage) const { return queries + stage * 2 * Traits::kQueryBytes; }
  __device__ uint32_t do_tile(int stage) const { return q_tile(stage) + Traits::kQueryBytes; }
  __device__ uint32_t ds_tile(int stage) const { return p + (1 + stage) * Traits::kScoreBytes; }

  __device__ __forceinline__ void load_keys(int kv_head) const {
    const int rows = s.len_k - key0;
    const T* kp = static_cast<const T*>(a.k) + s.k_start + kv_head * a.k_stride_head;
    const T* vp = static_cast<const T*>(a.v) + s.v_start + kv_head * a.v_stride_head;
    load_tile<kN, kD, Traits::kThreads>(
        k,
        thread_part<kD>(kp + key0 * a.k_stride_token, a.k_stride_token),
        a.k_stride_token,
        rows,
        a.head_dim);
    load_tile<kN, kD, Traits::kThreads>(
        v,
        thread_part<kD>(vp + key0 * a.v_stride_token, a.v_stride_token),
        a.v_stride_token,
        rows,
        a.head_dim);
  }
  // Q, dO, lse (in base 2) and delta of queries kM m.. of one head. A row that sees no key has lse
  // -inf; +inf makes its p zero.
  __device__ __forceinline__ void load_queries(int stage, int head, int m) const {
    const int rows = s.len_q - m * kM;
    const T* qp = static_cast<const T*>(a.q) + s.q_start + head * a.q_stride_head;
    const T* op = static_cast<const T*>(g.d_o) + s.o_start + head * a.o_stride_head;
    load_tile<kM, kD, Traits::kThreads>(
        q_tile(stage),
        thread_part<kD>(qp + m * kM * a.q_stride_token, a.q_stride_token),
        a.q_stride_token,
        rows,
        a.head_dim);
    load_tile<kM, kD, Traits::kThreads>(
        do_tile(stage),
        thread_part<kD>(op + m * kM * a.o_stride_token, a.o_stride_token),
        a.o_stride_token,
        rows,
        a.head_dim);
    if (threadIdx.x < kM / 4 * 2) {
      // 16 bytes of lse or delta; the four rows may straddle the end, so single values are checked
      const int which = threadIdx.x / (kM / 4), row = threadIdx.x % (kM / 4) * 4;
      const float* from = (which == 0 ? a.lse : g.delta) + s.lse_start + head * s.lse_stride_head;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float x = row + r < rows ? from[m * kM + row + r] : 0.0f;
        store_shared_4(stats + stage * Traits::kStatBytes + (which * kM + row + r) * 4,
                       __float_as_uint(which != 0           ? x
                                       : x == -CUDART_INF_F ? CUDART_INF_F
                                                            : x * kLog2e));
      }
    }
    cp_async_commit();
  }

  // Query blocks that see any of the CTA's keys.
  __device__ __forceinline__ void query_range(int* min, int* max) const {
    const int shift = s.len_k - s.len_q;
    int low = 0, high = s.len_q;
    if (a.window_right >= 0) low = ::max(0, key0 - a.window_right - shift);
    if (a.window_left >= 0) {
      high = ::min(high, ::min(key0 + kN, s.len_k) - 1 + a.window_left - shift + 1);
    }
    *min = low / kM;
    *max = high > low ? (high + kM - 1) / kM : *min;
  }

  // Scores of the warp's keys and queries of block m, -inf where a query does not see the key.
  __device__ __forceinline__ void mask(float (&x)[2][kQueries / 2], int m) const {
    int shift = s.len_k - s.len_q;
    asm volatile("" : "+r"(shift));  // or all bounds would stay in registers through the main loop
    const bool masked = (m + 1) * kM > s.len_q || key0 + kN > s.len_k ||
                        (a.window_right >= 0 && key0 + kN - 1 > m * kM + shift + a.window_right) ||
                        (a.window_left >= 0 && key0 < (m + 1) * kM - 1 + shift - a.window_left);
    if (!masked) return;
    const int lane = threadIdx.x % 32, origin = m * kM + query0 + 2 * (lane % 4);
#pragma unroll
    for (int f = 0; f < 2; ++f) {
      int low[2], high[2];  // the queries that see the key
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int key = key0 + row0 + 16 * f + lane / 4 + 8 * r;
        low[r] = a.window_right >= 0 ? key - shift - a.window_right : 0;
        high[r] = a.window_left >= 0 ? min(s.len_q, key - shift + a.window_left + 1) : s.len_q;
        if (key >= s.len_k) high[r] = 0;
        low[r] -= origin;
        high[r] -= origin;
      }
      mask_block(x[f], low, high, -CUDART_INF_F);
    }
  }

  // x := P^T from the scores.
  __device__ __forceinline__ void exponentiate(float (&x)[2][kQueries / 2], int stage) const {
    const float scale_log2 = a.scale * kLog2e;
    const uint32_t at = stats + stage * Traits::kStatBytes + (query0 + 2 * (threadIdx.x % 4)) * 4;
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      float lse[2];
      load_shared_8(at + 8 * j * 4, &lse[0], &lse[1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int f = 0; f < 2; ++f) {
          x[f][4 * j + i] = exp2_approx(x[f][4 * j + i] * scale_log2 - lse[i % 2]);
        }
      }
    }
  }

  // d := dS^T = P^T * (dP^T - delta).
  __device__ __forceinline__ void differentiate(float (&d)[2][kQueries / 2],
                                                const float (&x)[2][kQueries / 2],
                                                int stage) const {
    const uint32_t at =
        stats + stage * Traits::kStatBytes + (kM + query0 + 2 * (threadIdx.x % 4)) * 4;
#pragma unroll
    for (int j = 0; j < kQueries / 8; ++j) {
      float delta[2];
      load_shared_8(at + 8 * j * 4, &delta[0], &delta[1]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int f = 0; f < 2; ++f) {
          d[f][4 * j + i] = x[f][4 * j + i] * (d[f][4 * j + i] - delta[i % 2]);
        }
      }
    }
  }

  // The A operands of the warp's own queries, in registers, to `tile` for the other warps.
  __device__ __forceinline__ void store_scores(const uint32_t (&own)[2][kSteps][4],
                                               uint32_t tile) const {
    const uint32_t rows = first_step<kN>(tile + row0 * 128, query0 / 16);
#pragma unroll
    for (int f = 0; f < 2; ++f) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) store_a<kN>(own[f][step], rows, 16 * f, step);
    }
  }
  // sum[32 keys x kColumns] += A B of 16 queries.
  __device__ __forceinline__ void accumulate_step(float (&sum)[2][Traits::kColumns / 2],
                                                  const uint32_t (&x0)[4],
                                                  const uint32_t (&x1)[4],
                                                  uint32_t operand) const {
#pragma unroll
    for (int n = 0; n < Traits::kColumns / 16; ++n) {
      uint32_t b[4];
      load_b_trans<kM>(b, operand, (kWholeSlabs ? 0 : column0) + 16 * n, 0);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(sum[0][8 * n]), x0, b[0], b[1]);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(sum[1][8 * n]), x1, b[0], b[1]);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(sum[0][8 * n + 4]), x0, b[2], b[3]);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(sum[1][8 * n + 4]), x1, b[2], b[3]);
    }
  }
  // Row `query` of a (Q or dO) tile, as operand B from the warp's first column on.
  __device__ __forceinline__ uint32_t operand_rows(uint32_t tile, int query) const {
    return tile + query * 128 + (kWholeSlabs ? column0 / 64 * (kM * 128) : 0);
  }
  __device__ __forceinline__ void accumulate_own(float (&sum)[2][Traits::kColumns / 2],
                                                 const uint32_t (&own)[2][kSteps][4],
                                                 uint32_t operand) const {
    const uint32_t rows = operand_rows(operand, query0);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      accumulate_step(sum, own[0][step], own[1][step], rows + step * (16 * 128));
    }
  }
  __device__ __forceinline__ void accumulate_others(float (&sum)[2][Traits::kColumns / 2],
                                                    uint32_t tile,
                                                    uint32_t operand) const {
#pragma unroll
    for (int i = 1; i < Traits::kParts; ++i) {
      const int query = (query0 + i * kQueries) % kM;
      const uint32_t left = first_step<kN>(tile + row0 * 128, query / 16);
      const uint32_t rows = operand_rows(operand, query);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        uint32_t x[2][4];
        load_a_at<kN>(x[0], left, 0, step);
        load_a_at<kN>(x[1], left, 16, step);
        accumulate_step(sum, x[0], x[1], rows + step * (16 * 128));
      }
    }
  }

  // One block of queries: all products but dQ.
  __device__ __forceinline__ void add_block(float (&dk)[2][Traits::kColumns / 2],
                                            float (&dv)[2][Traits::kColumns / 2],
                                            int m,
                                            int stage) const {
    float x[2][kQueries / 2], d[2][kQueries / 2];
    scores<T, kN, kM, kD, kQueries>(x, k + row0 * 128, q_tile(stage) + query0 * 128);
    // Masked before the exponentials, which have then no branch between them and the next product.
    mask(x, m);
    exponentiate(x, stage);
    scores<T, kN, kM, kD, kQueries>(d, v + row0 * 128, do_tile(stage) + query0 * 128);
    uint32_t packed[2][kSteps][4];
    pack_probabilities<T>(x[0], packed[0]);
    pack_probabilities<T>(x[1], packed[1]);
    store_scores(packed, p);
    accumulate_own(dv, packed, do_tile(stage));
    differentiate(d, x, stage);
    pack_probabilities<T>(d[0], packed[0]);
    pack_probabilities<T>(d[1], packed[1]);
    store_scores(packed, ds_tile(stage));
    accumulate_own(dk, packed, q_tile(stage));
    named_barrier_sync(1 + row0 / 32, Traits::kParts * 32);  // of the warps with the same keys
    accumulate_others(dv, p, do_tile(stage));
    accumulate_others(dk, ds_tile(stage), q_tile(stage));
  }

  // dq_sum[kM queries] += dS K: warps take 32 queries and a part of the columns each. Rows past the
  // end are zero in dS and have their place in dq_sum.
  __device__ __forceinline__ void add_dq(int head, int m, uint32_t ds) const {
    using Warp = DqWarp<kM, kD>;
    constexpr int kColumns = Warp::kColumns, kGroups = (kColumns + 15) / 16;
    const int row0 = Warp::row0(), column0 = Warp::column0();
    float d[2][kGroups * 8];
#pragma unroll
    for (int j = 0; j < kGroups * 8; ++j) d[0][j] = d[1][j] = 0.0f;
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
      uint32_t rows[2][4];
      load_a_trans<kN>(rows[0], ds, row0, step);
      load_a_trans<kN>(rows[1], ds, row0 + 16, step);
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        uint32_t b[4];
        load_b_trans_columns<kN>(b, k, column0 + 16 * n, step);
#pragma unroll
        for (int f = 0; f < 2; ++f) {
          mma_16816<T>(reinterpret_cast<float(&)[4]>(d[f][8 * n]), rows[f], b[0], b[1]);
          if (16 * n + 8 < kColumns) {
            mma_16816<T>(reinterpret_cast<float(&)[4]>(d[f][8 * n + 4]), rows[f], b[2], b[3]);
          }
        }
      }
    }
    float values[Warp::kCount];
#pragma unroll
    for (int f = 0; f < 2; ++f) {
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) values[f * (kColumns / 2) + j] = d[f][j];
    }
    atomic_add_dq(dq_block<kM, kD>(a, g, s, head, m) + Warp::part(), values);
  }

  __device__ __forceinline__ void store(uint32_t tile,
                                        float (&d)[2][Traits::kColumns / 2],
                                        float scale,
                                        void* tensor,
                                        int64_t start,
                                        int64_t stride) const {
#pragma unroll
    for (int f = 0; f < 2; ++f) {
#pragma unroll
      for (int j = 0; j < Traits::kColumns / 2; ++j) d[f][j] *= scale;
      store_fragment<kN, T>(tile, row0 + 16 * f, column0 / 8, d[f]);
    }
    __syncthreads();
    T* base = static_cast<T*>(tensor) + start;
    copy_rows_out<kN, kD, T>(
        tile, 0, kN, threadIdx.x, Traits::kThreads, a.head_dim, [&](int row) -> T* {
          return key0 + row < s.len_k ? base + (key0 + row) * stride : nullptr;
        });
  }
};

template <typename Traits, bool kAtomicDq>
__global__ void __launch_bounds__(Traits::kThreads, 1)
    dkdv_kernel(const __grid_constant__ QuireAttentionArgs a,
                const __grid_constant__ BackwardParams g) {
  extern __shared__ char raw[];
  const Sequence s = get_sequence(a, blockIdx.z);
  const DkdvCta<Traits> cta(a, g, s, (smem_address(raw) + 1023) & ~1023u);
  if (cta.key0 >= s.len_k) return;
  const int group = a.num_heads / a.num_kv_heads, kv_head = blockIdx.y;
  int m_min, m_max;
  cta.query_range(&m_min, &m_max);
  const int steps = (m_max - m_min) * group;

  float dk[2][Traits::kColumns / 2], dv[2][Traits::kColumns / 2];
#pragma unroll
  for (int f = 0; f < 2; ++f) {
#pragma unroll
    for (int j = 0; j < Traits::kColumns / 2; ++j) dk[f][j] = dv[f][j] = 0.0f;
  }
  // Query blocks in the order of the heads of the group; `next` is one step ahead.
  struct Position {
    int head, m;
    __device__ void advance(int min, int max) {
      if (++m == max) {
        m = min;
        ++head;
      }
    }
  };
  Position now = {kv_head * group, m_min}, next = now;
  if (steps > 0) {
    cta.load_keys(kv_head);
    cta.load_queries(0, next.head, next.m);
  }
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    cp_async_wait<0>();
    __syncthreads();  // this stage has arrived, the other is free, and dS of the step before is
                      // complete
    next.advance(m_min, m_max);
    if (step + 1 < steps) cta.load_queries(stage ^ 1, next.head, next.m);
    // dQ lags one step behind, so that one barrier of all warps a step suffices.
    if (kAtomicDq && step > 0) {
      const bool same_head = now.m > m_min;
      cta.add_dq(same_head ? now.head : now.head - 1,
                 same_head ? now.m - 1 : m_max - 1,
                 cta.ds_tile(stage ^ 1));
    }
    cta.add_block(dk, dv, now.m, stage);
    now = next;
  }
  cp_async_wait<0>();
  __syncthreads();
  if (kAtomicDq && steps > 0) {
    cta.add_dq(kv_head * group + group - 1, m_max - 1, cta.ds_tile((steps - 1) % 2));
  }
  __syncthreads();
  const Sequence end = get_sequence(a, blockIdx.z);  // again, so that the loop need not keep it
  cta.store(cta.v, dv, 1.0f, g.dv, end.v_start + kv_head * a.v_stride_head, a.v_stride_token);
  cta.store(cta.k, dk, a.scale, g.dk, end.k_start + kv_head * a.k_stride_head, a.k_stride_token);
}

}  // namespace quire::cuda::sm80
