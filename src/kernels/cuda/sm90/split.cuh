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
// chunks' outputs. Loads are the time of it, so the outputs are on their way before the weights are
// known.
template <typename T, int kD>
__device__ __forceinline__ void combine_row(const ForwardParams& p, const Tile& tile, int row) {
  constexpr int kPairs = kD / 64;  // columns 2*lane + 64*c and the next
  constexpr int kAtOnce = kD <= 128 ? 8 : 2;
  const int lane = threadIdx.x % 32;
  const int64_t first = tile.item - tile.split;
  const int head = (tile.head_group << p.pack_log2) + (row & ((1 << p.pack_log2) - 1));
  const int token = tile.token0 + (row >> p.pack_log2);
  const float* lse = p.partial_lse + first * p.partial_rows + row;
  const float* chunk = p.partial_o + (first * p.partial_rows + row) * kD + 2 * lane;
  float2 x[kAtOnce][kPairs];
  const auto load = [&](int i0) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int c = 0; c < kPairs; ++c) {
        if (i0 + i < tile.num_splits) {
          x[i][c] = __ldcg(reinterpret_cast<const float2*>(
              chunk + static_cast<int64_t>(i0 + i) * p.partial_rows * kD + 64 * c));
        }
      }
    }
  };
  const float own = lane < tile.num_splits ? __ldcg(lse + lane * p.partial_rows) : -CUDART_INF_F;
  load(0);
  const float sink = p.sinks != nullptr ? p.sinks[head] : -CUDART_INF_F;
  float max = fmaxf(sink, own);
  for (int i = lane + 32; i < tile.num_splits; i += 32)
    max = fmaxf(max, __ldcg(lse + i * p.partial_rows));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, step));
  }
  const float safe = max == -CUDART_INF_F ? 0.0f : max;
  float sum = exp2_approx((sink - safe) * kLog2e);
  float o[2 * kPairs] = {};
  for (int i0 = 0;;) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (i0 + i < tile.num_splits) {
        const float part = i0 + i < 32 ? __shfl_sync(0xffffffffu, own, i0 + i)
                                       : __ldcg(lse + (i0 + i) * p.partial_rows);
        const float weight = exp2_approx((part - safe) * kLog2e);
        sum += weight;
#pragma unroll
        for (int c = 0; c < kPairs; ++c) {
          o[2 * c] += weight * x[i][c].x;
          o[2 * c + 1] += weight * x[i][c].y;
        }
      }
    }
    i0 += kAtOnce;
    if (i0 >= tile.num_splits) break;
    load(i0);
  }
  const float factor = sum > 0.0f || isnan(sum) ? 1.0f / sum : 0.0f;
  const int64_t start = p.cu_q != nullptr ? tile.q_t : 0;
  T* out = static_cast<T*>(p.o) + (p.cu_q != nullptr ? 0 : tile.batch * p.o_stride_batch) +
           (start + token) * p.o_stride_token + head * p.o_stride_head;
#pragma unroll
  for (int c = 0; c < kPairs; ++c) {
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
  named_barrier_sync(kBarrier, 128);
  if (threadIdx.x % 128 == 0) {
    // Releases what the barrier has made visible to this thread, and acquires what others released.
    const int before = atomic_add_acquire_release(p.arrivals + tile.number, 1);
    *last = before == tile.num_splits - 1 - kIsMutant<kCombineEarly>;
    if (*last) p.arrivals[tile.number] = 0;
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
