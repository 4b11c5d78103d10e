// FlashAttention-2 forward (arXiv 2307.08691) with mma.sync and cp.async: runs on sm_80 and
// everything later.
//
//   tiles   kM = 16*kFragments*kWarps query rows of one head, kN keys; a warp owns 16*kFragments
//   rows, so that the two
//           fragments share every K and V fragment read from shared memory (which bounds this class
//           of kernel).
//   copies  V(n) is fetched under S = Q K(n), K(n-1) under the softmax and O += P V(n).
//   shared  Q (reused for O), one K and one V tile: 64 KB at d128, so two CTAs fit an SM and hide
//   each other.
#pragma once

#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/sm80/tile.cuh"
#include "kernels/cuda/softmax.cuh"

namespace quire::cuda::sm80 {

template <typename T_, int kD_, int kWarps_, int kFragments_, int kN_, int kCtas_, bool kSoftcap_>
struct ForwardTraits {
  using T = T_;
  static constexpr int kD = kD_, kWarps = kWarps_, kFragments = kFragments_, kN = kN_;
  static constexpr int kCtas = kCtas_;  // resident on one SM
  static constexpr bool kSoftcap = kSoftcap_;
  static constexpr bool kLazy = true;
  static constexpr int kM = 16 * kFragments * kWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kSmemBytes = kTileBytes<kM, kD> + 2 * kTileBytes<kN, kD> + 1024;
};

template <typename Traits>
struct ForwardTile {
  using T = typename Traits::T;
  static constexpr int kM = Traits::kM, kN = Traits::kN, kD = Traits::kD;
  static constexpr int kF = Traits::kFragments;
  const QuireAttentionArgs& a;
  int len_k;
  int position;              // of the tile's first query among the keys
  const T *k_part, *v_part;  // thread_part of this KV head's keys and values
  uint32_t q, k, v;          // shared tiles

  // The first query token. Masked problems: the last query tiles see the most keys and start first.
  static __device__ __forceinline__ int first_token(const QuireAttentionArgs& a) {
    return (a.window_right >= 0 ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * kM;
  }

  __device__ __forceinline__ void load_q(const T* base, int rows) const {
    load_tile<kM, kD, Traits::kThreads>(
        q, thread_part<kD>(base, a.q_stride_token), a.q_stride_token, rows, a.head_dim);
  }
  __device__ __forceinline__ void load_k(int n) const {
    load_tile<kN, kD, Traits::kThreads>(
        k, k_part + n * kN * a.k_stride_token, a.k_stride_token, len_k - n * kN, a.head_dim);
    cp_async_commit();
  }
  __device__ __forceinline__ void load_v(int n) const {
    load_tile<kN, kD, Traits::kThreads>(
        v, v_part + n * kN * a.v_stride_token, a.v_stride_token, len_k - n * kN, a.head_dim);
    cp_async_commit();
  }

  __device__ __forceinline__ int warp_row() const { return threadIdx.x / 32 * 16 * kF; }

  // s[f] = Q[16 rows] K^T
  __device__ __forceinline__ void scores(float (&x)[kF][kN / 2]) const {
#pragma unroll
    for (int f = 0; f < kF; ++f) {
#pragma unroll
      for (int j = 0; j < kN / 2; ++j) x[f][j] = 0.0f;
    }
    const uint32_t q_warp = q + warp_row() * 128;
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      uint32_t rows[kF][4];
#pragma unroll
      for (int f = 0; f < kF; ++f) load_a<kM>(rows[f], q_warp, 16 * f, step);
#pragma unroll
      for (int n = 0; n < kN / 16; ++n) {
        uint32_t b[4];
        load_b<kN>(b, k, 16 * n, step);
#pragma unroll
        for (int f = 0; f < kF; ++f) {
          mma_16816<T>(reinterpret_cast<float(&)[4]>(x[f][8 * n]), rows[f], b[0], b[1]);
          mma_16816<T>(reinterpret_cast<float(&)[4]>(x[f][8 * n + 4]), rows[f], b[2], b[3]);
        }
      }
    }
  }

  // o[f] += P V
  __device__ __forceinline__ void accumulate(float (&o)[kF][kD / 2],
                                             const uint32_t (&p)[kF][kN / 16][4]) const {
#pragma unroll
    for (int step = 0; step < kN / 16; ++step) {
#pragma unroll
      for (int n = 0; n < kD / 16; ++n) {
        uint32_t b[4];
        load_b_trans<kN>(b, v, 16 * n, step);
#pragma unroll
        for (int f = 0; f < kF; ++f) {
          mma_16816<T>(reinterpret_cast<float(&)[4]>(o[f][8 * n]), p[f][step], b[0], b[1]);
          mma_16816<T>(reinterpret_cast<float(&)[4]>(o[f][8 * n + 4]), p[f][step], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void mask(float (&x)[kN / 2], int f, int n) const {
    int low[2], high[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp_row() + 16 * f + threadIdx.x % 32 / 4 + 8 * r;
      visible_keys(a, len_k, position + row, &low[r], &high[r]);
      const int origin = n * kN + 2 * (threadIdx.x % 4);
      low[r] -= origin;
      high[r] -= origin;
    }
    mask_block(x, low, high, -CUDART_INF_F);
  }

  __device__ __forceinline__ void store(float (&o)[kF][kD / 2],
                                        const RowState (&state)[kF],
                                        float scale_log2) const {
    const Sequence s =
        get_sequence(a, blockIdx.z);  // again, so that the main loop need not keep it
    const int head = blockIdx.y, token0 = first_token(a);
#pragma unroll
    for (int f = 0; f < kF; ++f) {
      float factor[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const RowResult result =
            finish_row(state[f].max[r], quad_sum(state[f].sum[r]), scale_log2, a.sinks, head);
        factor[r] = result.factor;
        const int i = token0 + warp_row() + 16 * f + threadIdx.x % 32 / 4 + 8 * r;
        if (a.lse != nullptr && threadIdx.x % 4 == 0 && i < s.len_q) {
          a.lse[s.lse_start + head * s.lse_stride_head + i] = result.logsumexp;
        }
      }
#pragma unroll
      for (int j = 0; j < kD / 2; ++j) o[f][j] *= factor[(j / 2) % 2];
      store_fragment<kM, T>(q, warp_row() + 16 * f, 0, o[f]);
    }
    __syncwarp();  // a warp reads back only the rows it wrote, and nobody else reads its rows of Q
    T* base = static_cast<T*>(a.o) + s.o_start + head * a.o_stride_head;
    copy_rows_out<kM, kD, T>(
        q, warp_row(), 16 * kF, threadIdx.x % 32, 32, a.head_dim, [&](int row) -> T* {
          const int i = token0 + row;
          return i < s.len_q ? base + i * a.o_stride_token : nullptr;
        });
  }
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kCtas)
    forward_kernel(const __grid_constant__ QuireAttentionArgs a) {
  using T = typename Traits::T;
  constexpr int kN = Traits::kN, kD = Traits::kD, kF = Traits::kFragments;
  extern __shared__ char raw[];
  const uint32_t base = (smem_address(raw) + 1023) & ~1023u;
  const Sequence sequence = get_sequence(a, blockIdx.z);
  const int head = blockIdx.y;
  const int kv_head = head / (a.num_heads / a.num_kv_heads);
  const int token0 = ForwardTile<Traits>::first_token(a);
  if (token0 >= sequence.len_q) return;
  const ForwardTile<Traits> tile = {
      a,
      sequence.len_k,
      token0 + sequence.len_k - sequence.len_q,
      thread_part<kD>(static_cast<const T*>(a.k) + sequence.k_start + kv_head * a.k_stride_head,
                      a.k_stride_token),
      thread_part<kD>(static_cast<const T*>(a.v) + sequence.v_start + kv_head * a.v_stride_head,
                      a.v_stride_token),
      base,
      base + kTileBytes<Traits::kM, kD>,
      base + kTileBytes<Traits::kM, kD> + kTileBytes<kN, kD>};
  const int rows = min(sequence.len_q - token0, Traits::kM);
  int low, high, unused;
  visible_keys(a, tile.len_k, tile.position, &low, &unused);
  visible_keys(a, tile.len_k, tile.position + rows - 1, &unused, &high);
  const int n_min = low / kN;
  const int n_max = high > low ? (high + kN - 1) / kN : n_min;

  const float scale_log2 = (Traits::kSoftcap ? a.softcap : a.scale) * kLog2e;
  float o[kF][kD / 2];
  RowState state[kF];
#pragma unroll
  for (int f = 0; f < kF; ++f) {
    state[f] = {{-CUDART_INF_F, -CUDART_INF_F}, {0.0f, 0.0f}};
#pragma unroll
    for (int j = 0; j < kD / 2; ++j) o[f][j] = 0.0f;
  }
  if (n_max > n_min) {
    tile.load_q(static_cast<const T*>(a.q) + sequence.q_start + head * a.q_stride_head +
                    token0 * a.q_stride_token,
                rows);
    tile.load_k(n_max - 1);  // one group with Q
  }
  for (int n = n_max - 1; n >= n_min; --n) {
    cp_async_wait<0>();
    __syncthreads();  // K(n) has arrived for all; all have finished reading V(n+1)
    tile.load_v(n);
    float x[kF][kN / 2];
    tile.scores(x);
    cp_async_wait<0>();
    __syncthreads();  // V(n) has arrived; all have finished reading K(n)
    if (n > n_min) tile.load_k(n - 1);
    const bool masked = some_key_hidden(a, tile.len_k, tile.position, Traits::kM, n * kN, kN);
    uint32_t p[kF][kN / 16][4];
#pragma unroll
    for (int f = 0; f < kF; ++f) {
      if constexpr (Traits::kSoftcap) {
#pragma unroll
        for (int j = 0; j < kN / 2; ++j) x[f][j] = tanh_approx(x[f][j] * (a.scale / a.softcap));
      }
      if (masked) tile.mask(x[f], f, n);
      float alpha[2];
      if (softmax_block<Traits::kLazy>(x[f], state[f], scale_log2, alpha)) {
#pragma unroll
        for (int j = 0; j < kD / 2; ++j) o[f][j] *= alpha[(j / 2) % 2];
      }
      pack_probabilities<T>(x[f], p[f]);
    }
    tile.accumulate(o, p);
  }
  tile.store(o, state, scale_log2);
}

}  // namespace quire::cuda::sm80
