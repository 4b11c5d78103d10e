// What a consumer does to a block of scores and to a finished tile, apart from its products.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/sm90/traits.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/tma.cuh"

namespace quire::cuda::sm90 {

// The last key block may hold anything after the sequence's end, NaN included, and 0 * NaN = NaN:
// each warpgroup zeroes those rows of V itself before its own product reads them.
template <typename Traits>
__device__ __forceinline__ void zero_tail(uint32_t v, int used_rows, int consumer) {
  const int chunks = (Traits::kN - used_rows) * 8;  // 16-byte chunks per slab
#pragma unroll 1
  for (int slab = 0; slab < Traits::kSlabs; ++slab) {
#pragma unroll 1
    for (int i = threadIdx.x % 128; i < chunks; i += 128) {
      store_shared_16(v + Traits::KeyLayout::row(used_rows + i / 8, slab) + i % 8 * 16,
                      make_uint4(0, 0, 0, 0));
    }
  }
  __syncwarp();
  fence_async_proxy();
  named_barrier_sync(kZeroTail + consumer, 128);
}

// The part of the consumer that turns raw scores into masked ones.
template <typename Traits>
__device__ __forceinline__ void finish_scores(float (&s)[Traits::kN / 2],
                                              const ForwardParams& p,
                                              const Tile& tile,
                                              const KeyRange& range,
                                              const int (&token)[2],
                                              int n) {
  if constexpr (Traits::kSoftcap) {
#pragma unroll
    for (int j = 0; j < Traits::kN / 2; ++j) s[j] = tanh_approx(s[j] * p.softcap_scale);
  }
  const int first = n * Traits::kN;
  if (first >= range.all_low && first + Traits::kN <= range.all_high) return;
  const int shift = tile.len_k - tile.len_q;
  int low[2], high[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int lowest = 0, end = tile.len_k;
    if (p.window_right >= 0) end = min(end, token[r] + shift + p.window_right + 1);
    if (p.window_left >= 0) lowest = max(0, token[r] + shift - p.window_left);
    const int origin = first + 2 * (threadIdx.x % 4);
    low[r] = lowest - origin;
    high[r] = end - origin + kIsMutant<kMaskOffByOne>;
  }
  mask_block(s, low, high, -CUDART_INF_F);
}

template <int kCount>
__device__ __forceinline__ void scale_rows(float (&o)[kCount], const float (&factor)[2]) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) o[j] *= factor[(j / 2) % 2];
}

// O to 16 bits, through this warpgroup's part of the Q buffer, to global memory: one bulk store a
// slab, or, where rows after the end of a packed sequence belong to the next one, row by row.
template <typename Traits>
__device__ __forceinline__ void store_output(const CUtensorMap* map_o,
                                             const ForwardParams& p,
                                             const float (&o)[Traits::kD / 2],
                                             uint32_t buffer,
                                             const Tile& tile,
                                             int token0,
                                             int consumer) {
  using T = typename Traits::T;
  const int lane = threadIdx.x % 32;
  const int row = (threadIdx.x / 32 % 4) * 16 + (lane / 8 % 2) * 8 + lane % 8;
#pragma unroll
  for (int j = 0; j < Traits::kD / 8; j += 2) {
    const int group = j + lane / 16;
    stmatrix_x4(buffer + (j / 8) * (64 * 128) + swizzle128(row, group % 8),
                pack2<T>(o[4 * j], o[4 * j + 1]),
                pack2<T>(o[4 * j + 2], o[4 * j + 3]),
                pack2<T>(o[4 * j + 4], o[4 * j + 5]),
                pack2<T>(o[4 * j + 6], o[4 * j + 7]));
  }
  if (!kIsMutant<kDropStoreFence>) fence_async_proxy();
  named_barrier_sync(kEpilogue + consumer, 128);
  if (p.cu_q == nullptr || token0 + (64 >> p.pack_log2) <= tile.len_q) {
    if (threadIdx.x % 128 == 0) {
#pragma unroll
      for (int slab = 0; slab < Traits::kSlabs; ++slab) {
        tma_store_5d(map_o,
                     buffer + slab * 64 * 128,
                     slab * 64,
                     0,
                     tile.q_t + token0,
                     tile.head_group,
                     tile.q_z);
      }
      tma_store_commit();
    }
    return;
  }
  const int rows = max(0, tile.len_q - token0) << p.pack_log2;
  const int chunks = p.head_dim / 8;
  T* out = static_cast<T*>(p.o) + (tile.q_t + token0) * p.o_stride_token +
           (tile.head_group << p.pack_log2) * p.o_stride_head;
#pragma unroll 1
  for (int i = threadIdx.x % 128; i < rows * chunks; i += 128) {
    const int r = i / chunks, chunk = i - r * chunks;
    const uint4 value =
        load_shared_16(buffer + (chunk / 8) * (64 * 128) + swizzle128(r, chunk % 8));
    T* target = out + (r >> p.pack_log2) * p.o_stride_token +
                (r & ((1 << p.pack_log2) - 1)) * p.o_stride_head;
    *reinterpret_cast<uint4*>(target + chunk * 8) = value;
  }
  __syncwarp();
  named_barrier_sync(kEpilogue + consumer,
                     128);  // the buffer may be refilled once all have read it
}

__device__ __forceinline__ RowState no_keys() {
  return {{-CUDART_INF_F, -CUDART_INF_F}, {0.0f, 0.0f}};
}

}  // namespace quire::cuda::sm90
