// Results of tiles whose keys are cut into chunks (Flash-Decoding): every chunk leaves its
// unnormalised f32 output, its maximum and its sum; the CTA that finishes a tile's last chunk adds
// them up, in the order of the chunks whoever came last, so that two runs agree in every bit.
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

// A row's chunks, added up one after the other: the maximum (base 2) and the sum that belongs to
// it. The explicit rounding makes the kernels that do this (in registers, or from memory) agree in
// every bit.
struct MergedRow {
  float max, sum;
};
__device__ __forceinline__ MergedRow start_merge(const float* sinks, int head) {
  if (sinks == nullptr) return {-CUDART_INF_F, 0.0f};
  return {sinks[head] * kLog2e, 1.0f};  // a sink is a chunk whose output is zero
}
// What a thread's row is after the softmax of a chunk.
__device__ __forceinline__ MergedRow chunk_row(const RowState& state, int r, float scale_log2) {
  const float max = state.max[r];
  return {max == -CUDART_INF_F ? max : __fmul_rn(max, scale_log2), quad_sum(state.sum[r])};
}
// What is multiplied by which factor when a chunk is added.
struct MergeStep {
  float old, added;
};
__device__ __forceinline__ MergeStep merge_step(float old_max, float added_max, float new_max) {
  const float safe = new_max == -CUDART_INF_F ? 0.0f : new_max;
  return {exp2_approx(old_max - safe), exp2_approx(added_max - safe)};
}
__device__ __forceinline__ float add_scaled(float sum, float x, const MergeStep& step) {
  return __fmaf_rn(step.added, x, __fmul_rn(sum, step.old));
}
__device__ __forceinline__ MergeStep merge_chunk(MergedRow& row, const MergedRow& chunk) {
  const float max = fmaxf(row.max, chunk.max);
  const MergeStep step = merge_step(row.max, chunk.max, max);
  row.max = max;
  row.sum = add_scaled(row.sum, chunk.sum, step);
  return step;
}
__device__ __forceinline__ RowResult merge_result(const MergedRow& row) {
  if (!(row.sum > 0.0f) && !isnan(row.sum)) return {0.0f, -CUDART_INF_F};
  return {1.0f / row.sum, __fmul_rn(row.max + log2f(row.sum), kLn2)};
}

// One row from its chunks in memory. Loads are the time of it, so the outputs are on their way
// before the weights are known, and 32 chunks' weights are found at once: running maxima are exact,
// in whatever order they are taken.
template <typename T, int kD>
__device__ __forceinline__ void combine_row(const ForwardParams& p, const Tile& tile, int row) {
  constexpr int kPairs = kD / 64;  // columns 2*lane + 64*c and the next
  constexpr int kAtOnce = kD <= 128 ? 8 : 2;
  const int lane = threadIdx.x % 32;
  const int64_t first = tile.item - tile.split;
  const int head = (tile.head_group << p.pack_log2) + (row & ((1 << p.pack_log2) - 1));
  const int token = tile.token0 + (row >> p.pack_log2);
  const float2* stats = p.partial_stats + first * p.partial_rows + row;
  const float* chunk = p.partial_o + (first * p.partial_rows + row) * kD + 2 * lane;
  MergedRow merged = start_merge(p.sinks, head);
  float o[2 * kPairs] = {};
#pragma unroll 1
  for (int group = 0; group < tile.num_splits; group += 32) {
    const int count = min(32, tile.num_splits - group);
    const float2 own = lane < count ? __ldcg(stats + (group + lane) * p.partial_rows)
                                    : make_float2(-CUDART_INF_F, 0.0f);
    float max = own.x;  // of the chunks up to this lane's
    MergeStep own_step = {};
#pragma unroll 1
    for (int i0 = 0; i0 < count; i0 += kAtOnce) {
      float2 x[kAtOnce][kPairs];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
        for (int c = 0; c < kPairs; ++c) {
          if (i0 + i < count) {
            x[i][c] = __ldcg(reinterpret_cast<const float2*>(
                chunk + static_cast<int64_t>(group + i0 + i) * p.partial_rows * kD + 64 * c));
          }
        }
      }
      if (i0 == 0) {
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
          const float other = __shfl_up_sync(0xffffffffu, max, step);
          if (lane >= step) max = fmaxf(max, other);
        }
        max = fmaxf(max, merged.max);
        const float before = __shfl_up_sync(0xffffffffu, max, 1);
        own_step = merge_step(lane == 0 ? merged.max : before, own.x, max);
        merged.max = __shfl_sync(0xffffffffu, max, count - 1);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (i0 + i < count) {
          const MergeStep step = {__shfl_sync(0xffffffffu, own_step.old, i0 + i),
                                  __shfl_sync(0xffffffffu, own_step.added, i0 + i)};
          merged.sum = add_scaled(merged.sum, __shfl_sync(0xffffffffu, own.y, i0 + i), step);
#pragma unroll
          for (int c = 0; c < kPairs; ++c) {
            o[2 * c] = add_scaled(o[2 * c], x[i][c].x, step);
            o[2 * c + 1] = add_scaled(o[2 * c + 1], x[i][c].y, step);
          }
        }
      }
    }
  }
  const RowResult result = merge_result(merged);
  const int64_t start = p.cu_q != nullptr ? tile.q_t : 0;
  T* out = static_cast<T*>(p.o) + (p.cu_q != nullptr ? 0 : tile.batch * p.o_stride_batch) +
           (start + token) * p.o_stride_token + head * p.o_stride_head;
#pragma unroll
  for (int c = 0; c < kPairs; ++c) {
    const int column = 2 * lane + 64 * c;
    if (column < p.head_dim) {
      *reinterpret_cast<uint32_t*>(out + column) =
          pack2<T>(o[2 * c] * result.factor, o[2 * c + 1] * result.factor);
    }
  }
  if (lane == 0 && p.lse != nullptr) {
    p.lse[tile.batch * p.lse_stride_batch + head * p.lse_stride_head + start + token] =
        result.logsumexp;
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
