// Results of tiles whose keys are cut into chunks (Flash-Decoding): every chunk leaves its
// normalised f32 output and its log-sum-exp; the CTA that finishes a tile's last chunk adds them
// up, in the order of the chunks whoever came last, so that two runs agree in every bit.
#pragma once

#include <math_constants.h>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sm90/tiles.cuh"
#include "kernels/cuda/softmax.cuh"

namespace quire::cuda::sm90 {

__device__ __forceinline__ int used_rows(const ForwardParams& p, const Tile& tile) {
  return min(64, (tile.len_q - tile.token0) << p.pack_log2);
}

template <int kD>
__device__ __forceinline__ void store_partial(const ForwardParams& p,
                                              const Tile& tile,
                                              const float (&o)[kD / 2]) {
  const int lane = threadIdx.x % 32, rows = used_rows(p, tile);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = (threadIdx.x / 32 % 4) * 16 + lane / 4 + 8 * r;
    if (row >= rows) continue;
    float* out = p.partial_o + (static_cast<int64_t>(tile.item) * p.partial_rows + row) * kD +
                 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < kD / 8; ++j) {
      *reinterpret_cast<float2*>(out + 8 * j) = make_float2(o[4 * j + 2 * r], o[4 * j + 2 * r + 1]);
    }
  }
}

// One row: weights 2^(lse_i - max) over the chunks (and the sink), then the weighted sum of the
// chunks' outputs.
template <typename T, int kD>
__device__ __forceinline__ void combine_row(const ForwardParams& p, const Tile& tile, int row) {
  const int lane = threadIdx.x % 32;
  const int64_t first = tile.item - tile.split;
  const int head = (tile.head_group << p.pack_log2) + (row & ((1 << p.pack_log2) - 1));
  const int token = tile.token0 + (row >> p.pack_log2);
  const float* lse = p.partial_lse + first * p.partial_rows + row;
  const float sink = p.sinks != nullptr ? p.sinks[head] : -CUDART_INF_F;
  float max = sink;
  for (int i = lane; i < tile.num_splits; i += 32)
    max = fmaxf(max, __ldcg(lse + i * p.partial_rows));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, step));
  }
  const float safe = max == -CUDART_INF_F ? 0.0f : max;
  float sum = exp2_approx((sink - safe) * kLog2e);
  constexpr int kPerLane = kD / 32;  // columns 2*lane + 64*c and the next
  float o[kPerLane] = {};
  const float* chunk = p.partial_o + (first * p.partial_rows + row) * kD + 2 * lane;
#pragma unroll 8
  for (int i = 0; i < tile.num_splits; ++i) {
    const float weight = exp2_approx((__ldcg(lse + i * p.partial_rows) - safe) * kLog2e);
    sum += weight;
#pragma unroll
    for (int c = 0; c < kPerLane / 2; ++c) {
      const float2 x = __ldcg(reinterpret_cast<const float2*>(
          chunk + static_cast<int64_t>(i) * p.partial_rows * kD + 64 * c));
      o[2 * c] += weight * x.x;
      o[2 * c + 1] += weight * x.y;
    }
  }
  const float factor = sum > 0.0f || isnan(sum) ? 1.0f / sum : 0.0f;
  const int64_t start = p.cu_q != nullptr ? tile.q_t : 0;
  T* out = static_cast<T*>(p.o) + (p.cu_q != nullptr ? 0 : tile.batch * p.o_stride_batch) +
           (start + token) * p.o_stride_token + head * p.o_stride_head;
#pragma unroll
  for (int c = 0; c < kPerLane / 2; ++c) {
    const int column = 2 * lane + 64 * c;
    if (column < p.head_dim) {
      *reinterpret_cast<uint32_t*>(out + column) =
          pack2<T>(o[2 * c] * factor, o[2 * c + 1] * factor);
    }
  }
  if (lane == 0 && p.lse != nullptr) {
    p.lse[tile.batch * p.lse_stride_batch + head * p.lse_stride_head + start + token] =
        sum > 0.0f || isnan(sum) ? safe + log2f(sum) * kLn2 : -CUDART_INF_F;
  }
}

// Called by a consumer warpgroup after its partial result is written. `last`: an int in shared
// memory.
template <typename T, int kD>
__device__ __forceinline__ void combine_if_last(const ForwardParams& p,
                                                const Tile& tile,
                                                int* last) {
  constexpr int kBarrier = 7;
  __threadfence();
  named_barrier_sync(kBarrier, 128);
  if (threadIdx.x % 128 == 0) {
    const int before = atomicAdd(p.arrivals + tile.number, 1);
    *last = before == tile.num_splits - 1 - kIsMutant<kCombineEarly>;
    if (*last) p.arrivals[tile.number] = 0;
    __threadfence();
  }
  __syncwarp();
  named_barrier_sync(kBarrier, 128);
  if (*const_cast<volatile int*>(last)) {
    const int rows = used_rows(p, tile);
    for (int row = threadIdx.x / 32 % 4; row < rows; row += 4) combine_row<T, kD>(p, tile, row);
  }
  named_barrier_sync(kBarrier, 128);  // *last may be written again
}

}  // namespace quire::cuda::sm90
