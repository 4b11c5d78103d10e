// The template parameters of a Hopper forward kernel, and its shared memory.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sm90/tiles.cuh"
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
  static constexpr bool kQRegisters = kD <= 128 && kConsumers == 2;
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

enum NamedBarrier { kTurn = 1, kEpilogue = 4, kZeroTail = 8 };  // + consumer index

}  // namespace quire::cuda::sm90
