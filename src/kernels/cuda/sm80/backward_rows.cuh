// What the backward pass does a row of queries at a time: delta = rowsum(dO * O), and the sums of
// dQ that many CTAs add to.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/sm80/backward.h"

namespace quire::cuda::sm80 {

// dq_sum is not a matrix: the kM x kD sums of a query block lie in the order in which the threads
// of add_dq hold them, so that an atomic instruction of a warp covers one piece of memory without
// gaps (512 bytes in one instruction on sm_90, 128 before). Sequences begin at a new block.
template <int kM, int kD>
__device__ __forceinline__ float* dq_block(
    const QuireAttentionArgs& a, const BackwardParams& g, const Sequence& s, int head, int m) {
  const int64_t first = a.cu_seqlens_q != nullptr
                            ? s.lse_start / kM + s.batch
                            : static_cast<int64_t>(s.batch) * ((a.max_seqlen_q + kM - 1) / kM);
  return g.dq_sum + (head * g.dq_blocks + first + m) * (kM * kD);
}
// Calls function(pointer, i) for the i-th of kCount values of this lane, kStep of them at once.
#if __CUDA_ARCH__ >= 900
constexpr int kDqStep = 4;
#else
constexpr int kDqStep = 1;
#endif
template <int kCount, typename Function>
__device__ __forceinline__ void for_dq_values(float* warp_part, Function function) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kCount; i += kDqStep) function(warp_part + i * 32 + lane * kDqStep, i);
}
template <int kCount>
__device__ __forceinline__ void atomic_add_dq(float* warp_part, const float (&d)[kCount]) {
  for_dq_values<kCount>(warp_part, [&](float* p, int i) {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(p), make_float4(d[i], d[i + 1], d[i + 2], d[i + 3]));
#else
    atomicAdd(p, d[i]);
#endif
  });
}

// delta[row] = sum_c dO[row, c] O[row, c]: 8 columns a lane, kD / 8 lanes (a power of two) a row.
template <typename T, int kD>
__global__ void __launch_bounds__(256) delta_kernel(const __grid_constant__ QuireAttentionArgs a,
                                                    const __grid_constant__ BackwardParams g) {
  constexpr int kLanes = kD <= 64 ? 8 : kD <= 128 ? 16 : 32;
  const Sequence s = get_sequence(a, blockIdx.z);
  const int i = blockIdx.x * (256 / kLanes) + threadIdx.x / kLanes, head = blockIdx.y;
  const int column = threadIdx.x % kLanes * 8;
  float sum = 0;
  if (i < s.len_q && column < a.head_dim) {
    const int64_t at = s.o_start + i * a.o_stride_token + head * a.o_stride_head + column;
    const uint4 o = *reinterpret_cast<const uint4*>(static_cast<const T*>(a.o) + at);
    const uint4 d_o = *reinterpret_cast<const uint4*>(static_cast<const T*>(g.d_o) + at);
    const T* x = reinterpret_cast<const T*>(&o);
    const T* y = reinterpret_cast<const T*>(&d_o);
#pragma unroll
    for (int c = 0; c < 8; ++c) sum += static_cast<float>(x[c]) * static_cast<float>(y[c]);
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (i < s.len_q && column == 0) g.delta[s.lse_start + head * s.lse_stride_head + i] = sum;
}

// Where the warps of add_dq stand in the kM x kD block: 32 rows and a part of the columns each.
template <int kM, int kD>
struct DqWarp {
  static constexpr int kRowGroups = kM / 32;
  static constexpr int kColumns = kD * kRowGroups / 8, kCount = kColumns;  // 32 rows of 32 lanes
  static __device__ __forceinline__ int row0() { return threadIdx.x / 32 % kRowGroups * 32; }
  static __device__ __forceinline__ int column0() {
    return threadIdx.x / 32 / kRowGroups * kColumns;
  }
  static __device__ __forceinline__ int part() { return threadIdx.x / 32 * 32 * kCount; }
};

// dQ = scale * dq_sum in 16 bits: a CTA a block of kM queries, threads as in add_dq.
template <typename T, int kM, int kD>
__global__ void __launch_bounds__(256) convert_kernel(const __grid_constant__ QuireAttentionArgs a,
                                                      const __grid_constant__ BackwardParams g) {
  using Warp = DqWarp<kM, kD>;
  const Sequence s = get_sequence(a, blockIdx.z);
  const int m = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32;
  if (m * kM >= s.len_q) return;
  float d[Warp::kCount];
  for_dq_values<Warp::kCount>(dq_block<kM, kD>(a, g, s, head, m) + Warp::part(),
                              [&](float* p, int i) {
#pragma unroll
                                for (int e = 0; e < kDqStep; ++e) d[i + e] = p[e];
                              });
  T* to = static_cast<T*>(g.dq) + s.q_start + head * a.q_stride_head;
#pragma unroll
  for (int i = 0; i < Warp::kCount; i += 2) {
    const int f = i / (Warp::kColumns / 2), j = i % (Warp::kColumns / 2);
    const int query = m * kM + Warp::row0() + 16 * f + fragment_row(lane, j % 4);
    const int column = Warp::column0() + j / 4 * 8 + fragment_column(lane, j % 4);
    if (query < s.len_q && column < a.head_dim) {
      *reinterpret_cast<uint32_t*>(to + query * a.q_stride_token + column) =
          pack2<T>(d[i] * a.scale, d[i + 1] * a.scale);
    }
  }
}

}  // namespace quire::cuda::sm80
