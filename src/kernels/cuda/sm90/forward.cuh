// FlashAttention-3 class forward for Hopper (arXiv 2407.08608): O = softmax(mask(scale Q K^T)) V,
// 16-bit inputs.
//
//   roles   warpgroup 0: warps 0 and 1 stream K and V tiles through rings of stages, warp 2 loads
//   Q; all by TMA.
//           warpgroups 1..kConsumers own 64 query rows each and keep S, P and O in registers.
//   tiles   kM = 64 * kConsumers rows (packed GQA: tokens x heads of one group) by kN keys. Key
//   blocks are walked from
//           the last to the first, so that masked blocks come first.
//   ping-pong       a named barrier per consumer: a warpgroup issues its products only in its turn,
//   so that the
//                   softmax of one runs under the products of the other.
//   overlap         within a warpgroup O += P(n+1) V(n+1) runs under the softmax of S(n).
//   bound   per 128x128 tile at d128: 2048 tensor core cycles, 1024 exp2 cycles (hidden).
//   shared  Q (reused for O) kQStages*kM*kD + (kStagesK + kStagesV)*kN*kD 16-bit values, each tile
//   as slabs [kD/64][rows][64], or grouped (TileLayout), swizzled.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/sm90/split.cuh"
#include "kernels/cuda/sm90/tiles.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/tma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda::sm90 {

template <typename T_,
          int kD_,
          int kConsumers_,
          int kN_,
          int kStagesK_,
          int kStagesV_,
          bool kPingPong_,
          bool kOverlap_,
          bool kSoftcap_,
          KeyPlan kPlan_,
          bool kGrouped_,
          int kCtas_>
struct ForwardTraits {
  using T = T_;
  static constexpr int kD = kD_, kConsumers = kConsumers_, kN = kN_;
  static constexpr int kStagesK = kStagesK_, kStagesV = kStagesV_;
  static constexpr bool kPingPong = kPingPong_, kOverlap = kOverlap_, kSoftcap = kSoftcap_;
  static constexpr bool kSplit = kPlan_ == KeyPlan::kSplit || kPlan_ == KeyPlan::kSplitInvariant;
  // Several chunks of a sequence may be added up here (split.cuh).
  static constexpr bool kMerges = kPlan_ == KeyPlan::kMerged || kPlan_ == KeyPlan::kSplitInvariant;
  static constexpr KeyPlan kPlan = kPlan_;
  static constexpr bool kSpecialised = kPlan_ != KeyPlan::kUnspecialised;
  // Paged keys only: one bulk copy a box of tokens instead of one for each 64 columns of it.
  static constexpr bool kGrouped = kGrouped_;
  using KeyLayout = TileLayout<kN, kD, kGrouped>;
  // Blocks of a paged cache are looked up one tile ahead, so that a free stage never waits for the
  // table; three consumers leave the producer too few registers for it.
  static constexpr bool kLookAhead = kConsumers < 3;
  // Q as A operands in registers, where there are enough: a third less to read from shared memory.
  static constexpr bool kQRegisters = kD == 128 && kConsumers == 2;
  static constexpr int kCtas = kCtas_;  // resident on one SM
  static constexpr int kM = 64 * kConsumers;
  static constexpr int kThreads = 128 * (kConsumers + kSpecialised);
  static constexpr int kSlabs = kD / 64;
  static constexpr int kQBytes = 64 * kD * 2;  // one warpgroup's part
  static constexpr int kTileBytes = kN * kD * 2;
  static constexpr int kProducerRegisters = kConsumers == 1 ? 56 : kConsumers == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters = kConsumers == 1 ? 200 : kConsumers == 2 ? 232 : 160;
  // 256 threads alone on an SM have all the registers that an instruction can name.
  static constexpr bool kMovesRegisters = kThreads * kCtas > 256;
  // With two Q buffers the next tile's queries are there when this tile ends; at d256 there is no
  // room, and split kernels have several CTAs to hide the gap.
  static constexpr int kQStages = kD > 128 || kPlan != KeyPlan::kWhole ? 1 : 2;
  // The tiles of one head read the same keys; a short decode finds them again at the next step.
  static constexpr uint64_t kKeyHint = kCacheEvictLast;
  static constexpr int kSumBytes = kMerges ? 64 * kD * 4 : 0;  // O over chunks, a warpgroup
  static constexpr int kBarriers = 2 * (kQStages * kConsumers + kStagesK + kStagesV + 1);
  static constexpr int kStateBytes = (8 * kBarriers + 8 + sizeof(Tile) + 127) / 128 * 128;
  static constexpr int kSmemBytes = kQStages * kConsumers * kQBytes +
                                    (kStagesK + kStagesV) * kTileBytes + kSumBytes * kConsumers +
                                    kStateBytes;
};

template <typename Traits>
struct SharedStorage {
  uint32_t q, k, v, sums;  // shared addresses, 1024-byte aligned
  uint32_t q_full, q_empty, k_full, k_empty, v_full, v_empty, tile_full, tile_empty;  // barriers
  int* next_tile;
  int* last;   // split: whether this CTA combines
  Tile* tile;  // split: the item at work

  __device__ explicit SharedStorage(char* raw) {
    // A constant, so that every address below is one too: from the symbol, ptxas would derive it
    // again and again from the CTA's rank in its cluster, within the turns too.
    constexpr uint32_t kStart = 1024;  // the first KB belongs to the system (sm_90)
    if (smem_address(raw) != kStart) __trap();
    q = kStart;
    k = q + Traits::kQStages * Traits::kConsumers * Traits::kQBytes;
    v = k + Traits::kStagesK * Traits::kTileBytes;
    sums = v + Traits::kStagesV * Traits::kTileBytes;
    const uint32_t end = sums + Traits::kConsumers * Traits::kSumBytes;
    q_full = end;
    q_empty = q_full + 8 * Traits::kQStages * Traits::kConsumers;
    k_full = q_empty + 8 * Traits::kQStages * Traits::kConsumers;
    k_empty = k_full + 8 * Traits::kStagesK;
    v_full = k_empty + 8 * Traits::kStagesK;
    v_empty = v_full + 8 * Traits::kStagesV;
    tile_full = v_empty + 8 * Traits::kStagesV;
    tile_empty = tile_full + 8;
    next_tile = reinterpret_cast<int*>(raw + (tile_empty + 8 - kStart));
    last = next_tile + 1;
    tile = reinterpret_cast<Tile*>(last + 1);
  }

  __device__ void init_barriers() const {
    for (int i = 0; i < Traits::kQStages * Traits::kConsumers; ++i) {
      mbarrier_init(q_full + 8 * i, 1);
      mbarrier_init(q_empty + 8 * i, 1);
    }
    // One arrival per consumer warp releases a tile.
    for (int i = 0; i < Traits::kStagesK; ++i) {
      mbarrier_init(k_full + 8 * i, 1);
      mbarrier_init(k_empty + 8 * i, 4 * Traits::kConsumers);
    }
    for (int i = 0; i < Traits::kStagesV; ++i) {
      mbarrier_init(v_full + 8 * i, 1);
      mbarrier_init(v_empty + 8 * i, 4 * Traits::kConsumers);
    }
    mbarrier_init(tile_full, 1);
    mbarrier_init(tile_empty, 2 + 4 * Traits::kConsumers);  // the warps that read next_tile
    mbarrier_init_fence();
  }
};

// Position in a ring of kStages buffers.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

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

enum NamedBarrier { kTurn = 1, kEpilogue = 4, kZeroTail = 8 };  // + consumer index

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

template <typename Traits>
struct Consumer {
  static constexpr int kN = Traits::kN, kD = Traits::kD;
  using Layout = typename Traits::KeyLayout;
  const ForwardParams& p;
  const SharedStorage<Traits>& smem;
  const int consumer;  // 0..kConsumers-1
  RingPosition<Traits::kStagesK> ring_k;
  RingPosition<Traits::kStagesV> ring_v;
  RingPosition<Traits::kQStages> ring_q;
  const CUtensorMap *map_q, *map_k, *map_v;  // not specialised: the tensors it loads itself
  int loads_k = 0, loads_v = 0;
  MergedRow merged[2];  // merged: this thread's rows over the chunks so far ...
  bool has_sums;        // ... and whether `sums` holds any

  __device__ void take_turn() const {
    if constexpr (Traits::kPingPong) named_barrier_sync(kTurn + consumer, 256);
  }
  __device__ void pass_turn() const {
    if constexpr (Traits::kPingPong) {
      named_barrier_arrive(kTurn + (consumer + 1) % Traits::kConsumers, 256);
    }
  }
  __device__ void release(uint32_t barrier) const {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }
  __device__ void wait_k() const { mbarrier_wait(smem.k_full + 8 * ring_k.stage, ring_k.parity); }
  __device__ void wait_v() const {
    mbarrier_wait(smem.v_full + 8 * ring_v.stage, ring_v.parity ^ kIsMutant<kWrongParity>);
  }
  __device__ int q_index() const { return ring_q.stage * Traits::kConsumers + consumer; }
  __device__ uint32_t q_buffer() const { return smem.q + q_index() * Traits::kQBytes; }
  __device__ uint32_t k_descriptor() const {
    return k_major_descriptor(smem.k + ring_k.stage * Traits::kTileBytes);
  }
  __device__ uint32_t v_descriptor() const {
    return mn_major_descriptor<Layout>(smem.v + ring_v.stage * Traits::kTileBytes);
  }

  // A chunk's output (unnormalised o, state) to what the chunks before it left in shared memory,
  // each thread's values its own. Leaves the sum there, or, after the last chunk, in o.
  __device__ __forceinline__ void add_chunk(float (&o)[kD / 2], const RowState& state, bool last) {
    MergeStep step[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      step[r] = merge_chunk(merged[r], chunk_row(state, r, p.scale_log2));
    }
    const uint32_t at = smem.sums + consumer * Traits::kSumBytes + threadIdx.x % 128 * 16;
#pragma unroll
    for (int j = 0; j < kD / 2; j += 4) {
      const uint32_t place = at + j / 4 * (128 * 16);
      const uint4 bits = has_sums ? load_shared_16(place) : make_uint4(0, 0, 0, 0);
      const uint32_t old[4] = {bits.x, bits.y, bits.z, bits.w};
      float sum[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[i] = add_scaled(__uint_as_float(old[i]), o[j + i], step[i / 2]);
        if (last) o[j + i] = sum[i];
      }
      if (!last) {
        store_shared_16(place,
                        make_uint4(__float_as_uint(sum[0]),
                                   __float_as_uint(sum[1]),
                                   __float_as_uint(sum[2]),
                                   __float_as_uint(sum[3])));
      }
    }
    has_sums = true;
  }

  // Without specialised warps one consumer thread issues the copies, between its own products.
  __device__ __forceinline__ void load(const Tile& tile, const CUtensorMap* map, bool is_k, int n) {
    if (consumer != 0 || threadIdx.x != 0) return;
    const int stages = is_k ? Traits::kStagesK : Traits::kStagesV;
    const uint32_t tiles = is_k ? smem.k : smem.v, full = is_k ? smem.k_full : smem.v_full;
    int& count = is_k ? loads_k : loads_v;
    const int stage = count % stages;
    mbarrier_wait((is_k ? smem.k_empty : smem.v_empty) + 8 * stage, (count / stages + 1) % 2);
    ++count;
    load_dense_keys<Traits>(
        map, tile, tiles + stage * Traits::kTileBytes, full + 8 * stage, n * kN);
  }

  // This warp's 16 query rows as A fragments.
  __device__ __forceinline__ void load_q(uint32_t (&rows)[kD / 16][4]) const {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      ldmatrix_x4(rows[step],
                  q_buffer() + step / 4 * (64 * 128) + swizzle128(row, step % 4 * 2 + lane / 16));
    }
  }

  // The last key block's rows of V past the end of the sequence, before the product that reads
  // them.
  __device__ __forceinline__ void zero_tail_of(const Tile& tile, int n) const {
    if (!p.tail_unclean || (n + 1) * kN <= tile.len_k || kIsMutant<kKeepTail>) return;
    wait_v();
    zero_tail<Traits>(smem.v + ring_v.stage * Traits::kTileBytes, tile.len_k - n * kN, consumer);
  }

  // All key blocks of one query tile; o and state come out unnormalised.
  __device__ __forceinline__ void attend(const Tile& tile,
                                         const KeyRange& range,
                                         const KeyRange& own,
                                         const int (&token)[2],
                                         float (&o)[kD / 2],
                                         RowState& state) {
    using T = typename Traits::T;
    float s[kN / 2];
    uint32_t probabilities[kN / 16][4];
    float alpha[2];
    int n = first_block<kN, Traits::kMerges>(range);
    const uint32_t q = k_major_descriptor(q_buffer());
    uint32_t q_rows[kD / 16][4];
    if constexpr (Traits::kQRegisters) load_q(q_rows);
    const auto issue_qk = [&] {
      if constexpr (Traits::kQRegisters) {
        wgmma_qk_registers<T, kN, kD, Layout>(s, q_rows, k_descriptor());
      } else {
        wgmma_qk<T, kN, kD, Layout>(s, q, k_descriptor());
      }
    };

    if constexpr (!Traits::kSpecialised) {
      load(tile, map_k, true, n);
      if (n > range.min) load(tile, map_k, true, n - 1);
      load(tile, map_v, false, n);
    }
    wait_k();
    take_turn();
    wgmma_fence();
    issue_qk();
    wgmma_commit();
    pass_turn();
    wgmma_wait<0>();
    release(smem.k_empty + 8 * ring_k.stage);
    ring_k.advance();
    finish_scores<Traits>(s, p, tile, own, token, n);
    softmax_block<false>(s, state, p.scale_log2, alpha);
    pack_probabilities<T>(s, probabilities);
    zero_tail_of(tile, n);
    int accumulate = 1;  // 0: o holds a chunk that is already in the sums
    int following = next_block<kN, Traits::kMerges>(range, n);
    if (following >= range.min) wait_k();

    while (following >= range.min) {
      // A block of another chunk than the one before it comes after it in memory.
      const bool new_chunk = Traits::kMerges && following > n;
      n = following;
      following = next_block<kN, Traits::kMerges>(range, n);
      if constexpr (Traits::kOverlap) {
        take_turn();
        wgmma_fence();
        issue_qk();
        wgmma_commit();
        wait_v();
        wgmma_fence();
        wgmma_pv<T, kN, kD, Layout>(o, probabilities, v_descriptor(), accumulate);
        wgmma_commit();
        pass_turn();
        if constexpr (!Traits::kSpecialised) {
          if (n > range.min) load(tile, map_k, true, n - 1);
          load(tile, map_v, false, n);
        }
        wgmma_wait<1>();
        release(smem.k_empty + 8 * ring_k.stage);
        ring_k.advance();
        finish_scores<Traits>(s, p, tile, own, token, n);
        float shift[2];
        const RowState done = state;
        accumulate = 1;
        if (new_chunk) state = no_keys();
        const bool shrinks = softmax_max<true>(s, state, p.scale_log2, alpha, shift);
        // The wait for PV stands between maximum and exponentials: those, the packing of P and the
        // sums then fill each other's gaps (measured: 5 %). The wait for the next K stands before
        // it because its loop ends a basic block: without one, ptxas moves the wait for PV up to
        // the wait for S, and nothing is left to overlap (seen in SASS). Decode waits after the
        // exponentials.
        if constexpr (Traits::kSplit) softmax_exp(s, state, p.scale_log2, alpha, shift);
        if (following >= range.min) wait_k();
        wgmma_wait<0>();
        release(smem.v_empty + 8 * ring_v.stage);
        ring_v.advance();
        if constexpr (!Traits::kSplit) softmax_exp(s, state, p.scale_log2, alpha, shift);
        pack_probabilities<T>(s, probabilities);
        if (new_chunk) {
          add_chunk(o, done, false);
          accumulate = 0;
        } else if (shrinks && !kIsMutant<kSkipRescale>) {
          scale_rows(o, alpha);
        }
        if constexpr (Traits::kMerges) zero_tail_of(tile, n);
      } else {
        wait_v();
        take_turn();
        wgmma_fence();
        wgmma_pv<T, kN, kD, Layout>(o, probabilities, v_descriptor());
        wgmma_commit();
        issue_qk();
        wgmma_commit();
        pass_turn();
        wgmma_wait<0>();
        release(smem.v_empty + 8 * ring_v.stage);
        release(smem.k_empty + 8 * ring_k.stage);
        ring_v.advance();
        ring_k.advance();
        finish_scores<Traits>(s, p, tile, own, token, n);
        const bool shrinks = softmax_block<true>(s, state, p.scale_log2, alpha);
        pack_probabilities<T>(s, probabilities);
        if (shrinks) scale_rows(o, alpha);
        if (following >= range.min) wait_k();
      }
    }
    wait_v();
    wgmma_fence();
    wgmma_pv<T, kN, kD, Layout>(o, probabilities, v_descriptor(), accumulate);
    wgmma_commit();
    wgmma_wait<0>();
    release(smem.v_empty + 8 * ring_v.stage);
    ring_v.advance();
  }

  __device__ __forceinline__ void finish(const CUtensorMap* map_o,
                                         const Tile& tile,
                                         const int (&token)[2],
                                         int token0,
                                         float (&o)[kD / 2],
                                         RowState& state) {
    const bool partial = Traits::kSplit && tile.num_splits > 1;
    // In the batch-invariant plan a sink is always added last, as for many chunks.
    const bool alone =
        Traits::kSplit && !Traits::kMerges && !partial && p.chunk_tokens != 0 && p.sinks != nullptr;
    const bool merges = Traits::kMerges && !partial;
    float factor[2], whole_factor[2];
    if (merges) add_chunk(o, state, true);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = (threadIdx.x / 32 % 4) * 16 + threadIdx.x % 32 / 4 + 8 * r;
      const int head = (tile.head_group << p.pack_log2) + (row & ((1 << p.pack_log2) - 1));
      RowResult result;
      if (partial || alone) {
        const MergedRow chunk = chunk_row(state, r, p.scale_log2);
        if (partial) {
          if (threadIdx.x % 4 == 0 && token[r] < tile.len_q) {
            p.partial_stats[tile.item * p.partial_rows + row] = make_float2(chunk.max, chunk.sum);
          }
          continue;
        }
        MergedRow whole = start_merge(p.sinks, head);
        factor[r] = merge_chunk(whole, chunk).added;
        result = merge_result(whole);
        whole_factor[r] = result.factor;
      } else {
        result =
            merges ? merge_result(merged[r])
                   : finish_row(state.max[r], quad_sum(state.sum[r]), p.scale_log2, p.sinks, head);
        factor[r] = result.factor;
      }
      if (threadIdx.x % 4 != 0 || token[r] >= tile.len_q || p.lse == nullptr) continue;
      const int64_t start = p.cu_q != nullptr ? tile.q_t : 0;
      p.lse[tile.batch * p.lse_stride_batch + head * p.lse_stride_head + start + token[r]] =
          result.logsumexp;
    }
    if constexpr (Traits::kSplit) {
      if (partial) {
        store_partial<kD>(p, tile, o);
        combine_if_last<typename Traits::T, kD>(p, tile, smem.last);
        return;
      }
    }
    scale_rows(o, factor);
    if (alone) scale_rows(o, whole_factor);
    store_output<Traits>(map_o, p, o, q_buffer(), tile, token0, consumer);
  }

  __device__ __forceinline__ void start_chunks(const Tile& tile) {
    has_sums = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + 8 * r;
      const int head = (tile.head_group << p.pack_log2) + (row & ((1 << p.pack_log2) - 1));
      merged[r] = start_merge(p.sinks, head);
    }
  }

  __device__ __forceinline__ void run_tile(const CUtensorMap* map_o, const Tile& tile) {
    const int last = min(tile.len_q, tile.token0 + (Traits::kM >> p.pack_log2)) - 1;
    const KeyRange range = key_range<kN, Traits::kSplit>(p, tile, tile.token0, last);
    const int token0 = tile.token0 + consumer * (64 >> p.pack_log2);
    const KeyRange own =
        key_range<kN, Traits::kSplit>(p, tile, token0, token0 + (64 >> p.pack_log2) - 1);
    int token[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = (threadIdx.x / 32 % 4) * 16 + threadIdx.x % 32 / 4 + 8 * r;
      token[r] = token0 + (row >> p.pack_log2);
    }
    float o[kD / 2];
#pragma unroll
    for (int j = 0; j < kD / 2; ++j) o[j] = 0.0f;
    RowState state = no_keys();
    if constexpr (Traits::kMerges) start_chunks(tile);
    if constexpr (!Traits::kSpecialised) load_queries<Traits>(map_q, p, smem, tile, 0, consumer);
    mbarrier_wait(smem.q_full + 8 * q_index(), ring_q.parity);
    if (range.max > range.min) attend(tile, range, own, token, o, state);
    finish(map_o, tile, token, token0, o, state);
    if (threadIdx.x % 128 == 0) {
      tma_store_wait_read();
      mbarrier_arrive(smem.q_empty + 8 * q_index());
    }
    ring_q.advance();
  }

  __device__ __forceinline__ void run(const CUtensorMap* map_o) {
    if (consumer == Traits::kConsumers - 1) pass_turn();  // the first turn is consumer 0's
    for_each_tile<Traits>(p, smem, false, [&](const Tile& tile) { run_tile(map_o, tile); });
  }
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::kThreads, Traits::kCtas)
    forward_kernel(const __grid_constant__ CUtensorMap map_q,
                   const __grid_constant__ CUtensorMap map_k,
                   const __grid_constant__ CUtensorMap map_v,
                   const __grid_constant__ CUtensorMap map_o,
                   const __grid_constant__ ForwardParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char raw[];
  const SharedStorage<Traits> smem(raw);
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    tma_prefetch_descriptor(&map_q);
    tma_prefetch_descriptor(&map_k);
    tma_prefetch_descriptor(&map_v);
    tma_prefetch_descriptor(&map_o);
    smem.init_barriers();
  }
  // The next kernel's CTAs may take the places of those that have finished; what is above runs
  // before the previous kernel has ended, all that reads or writes memory after it.
  grid_dependency_launch();
  grid_dependency_wait();
  __syncthreads();
  if constexpr (!Traits::kSpecialised) {
    Consumer<Traits> consumer{p, smem, warpgroup};
    consumer.map_q = &map_q;
    consumer.map_k = &map_k;
    consumer.map_v = &map_v;
    consumer.run(&map_o);
  } else if (warpgroup == 0) {
    if constexpr (Traits::kMovesRegisters) registers_lower_to<Traits::kProducerRegisters>();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
    if (warp < 2) {
      produce_keys<Traits>(warp == 0 ? &map_k : &map_v, p, smem, warp == 0);
    } else if (warp == 2) {
      produce_queries<Traits>(&map_q, p, smem);
    } else if (Traits::kSplit) {
      prefetch_table(p);
    }
  } else {
    if constexpr (Traits::kMovesRegisters) registers_raise_to<Traits::kConsumerRegisters>();
    Consumer<Traits> consumer{p, smem, warpgroup - 1};
    consumer.run(&map_o);
  }
#endif
}

}  // namespace quire::cuda::sm90
