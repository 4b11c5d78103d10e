// The warps that copy queries and keys to shared memory.
#pragma once

#include "kernels/cuda/sm90/schedule.cuh"
#include "kernels/cuda/sm90/traits.cuh"
#include "kernels/cuda/tma.cuh"

namespace quire::cuda::sm90 {

// Paged keys: lane i looks up the block of box i of the tile that begins at key `first`, and
// returns the coordinate of (KV head and) block. Boxes that lie wholly past the end repeat the last
// visible key's box, so that no unused block is read and no table entry past the end is used.
template <typename Traits>
__device__ __forceinline__ int look_up_block(const ForwardParams& p, const Tile& tile, int first) {
  const int lane = threadIdx.x % 32;
  if (p.block_table == nullptr || lane >= Traits::kN / p.box_rows) return 0;
  const int last_box = (tile.len_k - 1) & ~(p.box_rows - 1);
  const int position = min(first + lane * p.box_rows, last_box);
  const int block = p.block_table[tile.batch * p.block_table_stride + (position >> p.block_log2)];
  return Traits::kGrouped ? block * p.heads_per_block + tile.kv_head : block;
}

// The CTAs together fetch the block table into L2 while each still finds out what its work is:
// after that, the lookup of the first blocks is the longest step before the first copies.
__device__ __forceinline__ void prefetch_table(const ForwardParams& p) {
  if (p.block_table == nullptr) return;
  constexpr int kEntries = 32;  // of a cache line
  const int per_row = (((p.max_len_k - 1) >> p.block_log2) + kEntries) / kEntries;
  const int i = blockIdx.x * 32 + threadIdx.x % 32;
  if (i >= p.batch * per_row) return;
  prefetch_l2(p.block_table + i / per_row * p.block_table_stride + i % per_row * kEntries);
}

// One tile of K or V that is not paged; one thread calls it.
template <typename Traits>
__device__ __forceinline__ void load_dense_keys(
    const CUtensorMap* map, const Tile& tile, uint32_t smem, uint32_t barrier, int first) {
  mbarrier_arrive_expect_tx(barrier, Traits::kTileBytes);
#pragma unroll
  for (int slab = 0; slab < Traits::kSlabs; ++slab) {
    tma_load_4d(smem + slab * Traits::kN * 128,
                map,
                barrier,
                slab * 64,
                tile.k_t + first,
                tile.kv_head,
                tile.k_z,
                Traits::kKeyHint);
  }
}

// One tile of K or V: kN keys from position `first`. All lanes of the warp call it; `block` is what
// look_up_block returned in each.
template <typename Traits>
__device__ __forceinline__ void load_keys(const CUtensorMap* map,
                                          const ForwardParams& p,
                                          const Tile& tile,
                                          uint32_t smem,
                                          uint32_t barrier,
                                          int first,
                                          int block) {
  const int lane = threadIdx.x % 32;
  if (!Traits::kGrouped && p.block_table == nullptr) {
    if (lane == 0) load_dense_keys<Traits>(map, tile, smem, barrier, first);
    return;
  }
  // box_rows divides both the block and the tile; one lane issues all copies (the copy instruction
  // takes uniform registers).
  const int last_box = (tile.len_k - 1) & ~(p.box_rows - 1);
  const auto copy = [&](int box, int box_block) {
    const int position = min(first + box * p.box_rows, last_box);
    const int row = position & ((1 << p.block_log2) - 1);
    if constexpr (Traits::kGrouped) {
      tma_load_5d(smem + box * p.box_rows * (Traits::kD * 2),
                  map,
                  barrier,
                  0,
                  0,
                  0,
                  row / 8,
                  box_block,
                  Traits::kKeyHint);
    } else {
#pragma unroll
      for (int slab = 0; slab < Traits::kSlabs; ++slab) {
        tma_load_4d(smem + slab * Traits::kN * 128 + box * p.box_rows * 128,
                    map,
                    barrier,
                    slab * 64,
                    row,
                    tile.kv_head,
                    box_block,
                    Traits::kKeyHint);
      }
    }
  };
  if (lane == 0) mbarrier_arrive_expect_tx(barrier, Traits::kTileBytes);
  if (Traits::kGrouped && p.box_rows == 16) {
    // The smallest boxes: the lookups of all of them before the first copy.
    constexpr int kBoxes = Traits::kN / 16;
    int blocks[kBoxes];
#pragma unroll
    for (int box = 0; box < kBoxes; ++box) blocks[box] = __shfl_sync(0xffffffffu, block, box);
    if (lane == 0) {
#pragma unroll
      for (int box = 0; box < kBoxes; ++box) copy(box, blocks[box]);
    }
    return;
  }
  for (int box = 0; box < Traits::kN / p.box_rows; ++box) {
    const int box_block = __shfl_sync(0xffffffffu, block, box);
    if (lane == 0) copy(box, box_block);
  }
}

// One warp streams K, another V: the same code over its own tensor map, ring and barriers.
template <typename Traits>
__device__ __forceinline__ void produce_keys(const CUtensorMap* map,
                                             const ForwardParams& p,
                                             const SharedStorage<Traits>& smem,
                                             bool is_k) {
  const uint32_t tiles = is_k ? smem.k : smem.v;
  const uint32_t full = is_k ? smem.k_full : smem.v_full;
  const uint32_t empty = is_k ? smem.k_empty : smem.v_empty;
  const int stages = is_k ? Traits::kStagesK : Traits::kStagesV;
  int stage = 0;
  uint32_t parity = 1;
  for_each_tile<Traits>(p, smem, is_k, [&](const Tile& tile) {
    const int last = min(tile.len_q, tile.token0 + (Traits::kM >> p.pack_log2)) - 1;
    const KeyRange range = key_range<Traits::kN, Traits::kSplit>(p, tile, tile.token0, last);
    if (range.max <= range.min) return;
    int n = first_block<Traits::kN, Traits::kMerges>(range);
    int block = Traits::kLookAhead ? look_up_block<Traits>(p, tile, n * Traits::kN) : 0;
    for (int following; n >= range.min; n = following) {
      following = next_block<Traits::kN, Traits::kMerges>(range, n);
      int current = block;
      if constexpr (Traits::kLookAhead) {
        if (following >= range.min) {
          block = look_up_block<Traits>(p, tile, following * Traits::kN);
        }
      } else {
        current = look_up_block<Traits>(p, tile, n * Traits::kN);
      }
      mbarrier_wait(empty + 8 * stage, parity);
      load_keys<Traits>(map,
                        p,
                        tile,
                        tiles + stage * Traits::kTileBytes,
                        full + 8 * stage,
                        n * Traits::kN,
                        current);
      if (++stage == stages) {
        stage = 0;
        parity ^= 1;
      }
    }
  });
}

// One consumer's rows of Q; one thread issues the copies.
template <typename Traits>
__device__ __forceinline__ void load_queries(const CUtensorMap* map_q,
                                             const ForwardParams& p,
                                             const SharedStorage<Traits>& smem,
                                             const Tile& tile,
                                             int stage,
                                             int consumer) {
  if (threadIdx.x % 32 != 0 || (!Traits::kSpecialised && threadIdx.x % 128 != 0)) return;
  const int buffer = stage * Traits::kConsumers + consumer;
  mbarrier_arrive_expect_tx(smem.q_full + 8 * buffer, Traits::kQBytes);
  for (int slab = 0; slab < Traits::kSlabs; ++slab) {
    tma_load_5d(smem.q + buffer * Traits::kQBytes + slab * 64 * 128,
                map_q,
                smem.q_full + 8 * buffer,
                slab * 64,
                0,
                tile.q_t + tile.token0 + consumer * (64 >> p.pack_log2),
                tile.head_group,
                tile.q_z,
                kCacheEvictFirst);
  }
}

template <typename Traits>
__device__ __forceinline__ void produce_queries(const CUtensorMap* map_q,
                                                const ForwardParams& p,
                                                const SharedStorage<Traits>& smem) {
  RingPosition<Traits::kQStages> ring;
  for_each_tile<Traits>(p, smem, false, [&](const Tile& tile) {
    if (threadIdx.x % 32 == 0) {
      for (int consumer = 0; consumer < Traits::kConsumers; ++consumer) {
        mbarrier_wait(smem.q_empty + 8 * (ring.stage * Traits::kConsumers + consumer),
                      ring.parity ^ 1);
        load_queries<Traits>(map_q, p, smem, tile, ring.stage, consumer);
      }
    }
    __syncwarp();
    ring.advance();
  });
}

}  // namespace quire::cuda::sm90
