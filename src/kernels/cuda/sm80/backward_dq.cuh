// dq_kernel: a CTA owns 64 queries and walks over the keys, without atomics: together with
// dkdv_kernel without dQ this is the deterministic variant; it computes S and dP a second time (7
// products instead of 5).
#pragma once

#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/sm80/backward.h"
#include "kernels/cuda/sm80/backward_traits.cuh"
#include "kernels/cuda/softmax.cuh"

namespace quire::cuda::sm80 {

template <typename Traits>
__global__ void __launch_bounds__(Traits::kDqThreads)
    dq_kernel(const __grid_constant__ QuireAttentionArgs a,
              const __grid_constant__ BackwardParams g) {
  using T = typename Traits::T;
  constexpr int kM = Traits::kDqM, kN = Traits::kDqN, kD = Traits::kD;
  constexpr int kThreads = Traits::kDqThreads;
  extern __shared__ char raw[];
  const uint32_t q = (smem_address(raw) + 1023) & ~1023u;
  const uint32_t d_o = q + kTileBytes<kM, kD>, k = d_o + kTileBytes<kM, kD>;
  const uint32_t v = k + kTileBytes<kN, kD>;
  const Sequence s = get_sequence(a, blockIdx.z);
  const int head = blockIdx.y, kv_head = head / (a.num_heads / a.num_kv_heads);
  const int query0 = (a.window_right >= 0 ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * kM;
  if (query0 >= s.len_q) return;
  const int row0 = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  const int position = query0 + s.len_k - s.len_q;  // of the first query among the keys
  int low, high, unused;
  visible_keys(a, s.len_k, position, &low, &unused);
  visible_keys(a, s.len_k, position + min(s.len_q - query0, kM) - 1, &unused, &high);

  const T* qp = static_cast<const T*>(a.q) + s.q_start + head * a.q_stride_head;
  const T* op = static_cast<const T*>(g.d_o) + s.o_start + head * a.o_stride_head;
  const T* k_part = thread_part<kD>(
      static_cast<const T*>(a.k) + s.k_start + kv_head * a.k_stride_head, a.k_stride_token);
  const T* v_part = thread_part<kD>(
      static_cast<const T*>(a.v) + s.v_start + kv_head * a.v_stride_head, a.v_stride_token);
  load_tile<kM, kD, kThreads>(q,
                              thread_part<kD>(qp + query0 * a.q_stride_token, a.q_stride_token),
                              a.q_stride_token,
                              s.len_q - query0,
                              a.head_dim);
  load_tile<kM, kD, kThreads>(d_o,
                              thread_part<kD>(op + query0 * a.o_stride_token, a.o_stride_token),
                              a.o_stride_token,
                              s.len_q - query0,
                              a.head_dim);
  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = query0 + row0 + lane / 4 + 8 * r;
    const int64_t at = s.lse_start + head * s.lse_stride_head + i;
    lse[r] = i < s.len_q ? a.lse[at] * kLog2e : 0.0f;
    delta[r] = i < s.len_q ? g.delta[at] : 0.0f;
  }
  float dq[kD / 2];
#pragma unroll
  for (int j = 0; j < kD / 2; ++j) dq[j] = 0.0f;
  const float scale_log2 = a.scale * kLog2e;
  const int n_min = low / kN, n_max = high > low ? (high + kN - 1) / kN : n_min;
  for (int n = n_min; n < n_max; ++n) {
    __syncthreads();  // all have finished reading K(n-1)
    load_tile<kN, kD, kThreads>(
        k, k_part + n * kN * a.k_stride_token, a.k_stride_token, s.len_k - n * kN, a.head_dim);
    cp_async_commit();
    load_tile<kN, kD, kThreads>(
        v, v_part + n * kN * a.v_stride_token, a.v_stride_token, s.len_k - n * kN, a.head_dim);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    float scores_of_block[1][kN / 2], gradients[1][kN / 2];
    float(&p)[kN / 2] = scores_of_block[0];
    float(&d)[kN / 2] = gradients[0];
    scores<T, kM, kN, kD, kN>(scores_of_block, q + row0 * 128, k);
    cp_async_wait<0>();
    __syncthreads();
    scores<T, kM, kN, kD, kN>(gradients, d_o + row0 * 128, v);
    const bool masked = some_key_hidden(a, s.len_k, position, kM, n * kN, kN);
#pragma unroll
    for (int e = 0; e < kN / 2; ++e) p[e] = exp2_approx(p[e] * scale_log2 - lse[(e / 2) % 2]);
    if (masked) {
      const int origin = n * kN + 2 * (lane % 4);
      int from[2], to[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        visible_keys(a, s.len_k, position + row0 + lane / 4 + 8 * r, &from[r], &to[r]);
        from[r] -= origin;
        to[r] -= origin;
      }
      mask_block(p, from, to, 0.0f);
    }
#pragma unroll
    for (int e = 0; e < kN / 2; ++e) d[e] = p[e] * (d[e] - delta[(e / 2) % 2]);
    uint32_t packed[kN / 16][4];
    pack_probabilities<T>(d, packed);
    accumulate<T, kN, kN / 16, kD>(dq, packed, k, 0);
  }
#pragma unroll
  for (int j = 0; j < kD / 2; ++j) dq[j] *= a.scale;
  cp_async_wait<0>();
  __syncthreads();
  store_fragment<kM, T>(q, row0, 0, dq);
  __syncwarp();
  T* out = static_cast<T*>(g.dq) + get_sequence(a, blockIdx.z).q_start + head * a.q_stride_head;
  copy_rows_out<kM, kD, T>(q, row0, 16, lane, 32, a.head_dim, [&](int row) -> T* {
    return query0 + row < s.len_q ? out + (query0 + row) * a.q_stride_token : nullptr;
  });
}

}  // namespace quire::cuda::sm80
