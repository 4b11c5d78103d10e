// How the warps of a CTA learn which tile is next.
#pragma once

#include "kernels/cuda/sm90/tiles.cuh"
#include "kernels/cuda/sm90/traits.cuh"

namespace quire::cuda::sm90 {

// Tiles beyond the first of each CTA come from a counter in global memory. The K warp draws the
// next one when it has issued its last load of a tile: early enough to hide the latency, late
// enough to keep the load balanced.
__device__ __forceinline__ int draw_index(const ForwardParams& p) {
  int index = 0;
  if (threadIdx.x % 32 == 0) index = gridDim.x + atomicAdd(p.next_tile, 1);
  return __shfl_sync(0xffffffffu, index, 0);
}
// What the K warp knows, in shared memory for all others.
template <typename Traits, typename Value>
__device__ __forceinline__ void publish(const SharedStorage<Traits>& smem,
                                        Value* place,
                                        const Value& value,
                                        uint32_t parity) {
  if (threadIdx.x % 32 == 0) {
    mbarrier_wait(smem.tile_empty, parity ^ 1);
    *place = value;
    mbarrier_arrive(smem.tile_full);
  }
  __syncwarp();
}
template <typename Traits, typename Value>
__device__ __forceinline__ Value read_published(const SharedStorage<Traits>& smem,
                                                const Value* place,
                                                uint32_t parity) {
  mbarrier_wait(smem.tile_full, parity);
  const Value value = *place;
  __syncwarp();
  if (threadIdx.x % 32 == 0) mbarrier_arrive(smem.tile_empty);
  return value;
}

// Every CTA that begins a tile draws exactly one index too many, so the draw that returns total - 1
// is the last one of all: it clears the counter for the next launch.
__device__ __forceinline__ void finish_draws(const ForwardParams& p, int index, int total) {
  const int drawn = index - static_cast<int>(gridDim.x);
  if (drawn >= 0 && drawn == total - 1 && threadIdx.x % 32 == 0) *p.next_tile = 0;
}

// Calls function(tile) for every tile of this CTA, in all warps alike, until there are no more.
template <typename Traits, typename Function>
__device__ __forceinline__ void for_each_tile(const ForwardParams& p,
                                              const SharedStorage<Traits>& smem,
                                              bool draws,
                                              Function function) {
  uint32_t parity = 0;
  if constexpr (Traits::kSplit) {
    // The K warp alone finds out what there is to do. After other work this code comes from device
    // memory, a microsecond a piece: one warp's copy of it is enough to wait for.
    const int chunk = draws ? plan_chunk<Traits::kN, Traits::kMerges>(p) : 0;
    for (int index = blockIdx.x;; parity ^= 1) {
      Tile tile;
      if (draws) {
        tile = get_item<Traits::kN>(p, index, chunk);
        publish<Traits>(smem, smem.tile, tile, parity);
      } else {
        tile = read_published<Traits>(smem, smem.tile, parity);
      }
      if (!tile.valid) {
        if (draws) finish_draws(p, index, tile.total);
        return;
      }
      function(tile);
      if (draws) index = draw_index(p);
    }
  } else {
    // The end is tested on the index alone: a test on the tile makes ptxas take the loop for
    // divergent and move all descriptors from uniform to vector registers (seen in SASS: R2UR
    // before every HGMMA; measured: 10 %).
    int index = blockIdx.x;
    for (; index < p.num_tiles; parity ^= 1) {
      const Tile tile = get_tile<Traits::kM>(p, index);
      if (tile.valid && tile.token0 < tile.len_q) function(tile);
      if (gridDim.x >= p.num_tiles) return;
      if (draws) {
        index = draw_index(p);
        publish<Traits>(smem, smem.next_tile, index, parity);
      } else {
        index = read_published<Traits>(smem, smem.next_tile, parity);
      }
    }
    if (draws) finish_draws(p, index, p.num_tiles);
  }
}

}  // namespace quire::cuda::sm90
