// What the sm_90a forward kernel is told besides its tensor maps. Plain data, filled by
// sm90/forward.cc.
#pragma once

#include <stdint.h>
#include <vector_types.h>

namespace quire::cuda::sm90 {

// Deliberate faults, each of which the tests must catch (tests/cuda/mutants.py). 0 in every build
// but those of the target cuda_mutants.
#ifndef QUIRE_MUTANT
#define QUIRE_MUTANT 0
#endif
enum Mutant {
  kKeepTail = 1,        // rows of V after the end of a sequence not zeroed
  kDropStoreFence = 2,  // O in shared memory not fenced before the copy engine reads it
  kWrongParity = 3,     // V's barrier awaited in the wrong phase
  kMaskOffByOne = 4,    // one key too many is visible
  kSkipRescale = 5,     // O keeps the scale of an older maximum
  kCombineEarly = 6,    // the last chunk but one combines
  kNumMutants = 6
};
template <Mutant kMutant>
constexpr bool kIsMutant = QUIRE_MUTANT == kMutant;

// What a CTA does with the keys of a query tile.
enum class KeyPlan {
  kWhole,           // all of them
  kSplit,           // a chunk, cut by the work of the batch (split.cuh)
  kSplitInvariant,  // a chunk at multiples of kInvariantChunk, or all of them
  kMerged,          // all of them, chunk by chunk: the bits of kSplitInvariant
  kUnspecialised,   // all of them, loaded by the warps that compute (an ablation)
};
// Keys of a chunk in the batch-invariant plan: chunks begin at its multiples.
constexpr int kInvariantChunk = 512;

struct ForwardParams {
  int32_t batch, num_heads, num_kv_heads, head_dim;
  int32_t max_len_q, max_len_k;
  // Packed GQA: `pack` query heads that share a KV head (a power of two dividing 64) are adjacent
  // rows of a tile: row = token * pack + head. head_groups = num_heads / pack.
  int32_t pack_log2, head_groups;
  int32_t group;  // num_heads / num_kv_heads

  const int32_t* cu_q;
  const int32_t* cu_k;
  const int32_t* seqused_k;
  // The last key block of a sequence may reach into memory that belongs to nobody or to another
  // sequence.
  bool tail_unclean;

  const int32_t* block_table;  // paged: Z is the block
  int64_t block_table_stride;
  int32_t block_log2, box_rows;  // tokens per block and per bulk copy; dense: box_rows = tile rows
  int32_t heads_per_block;       // grouped: (KV head, block) is one coordinate, block * this + head

  int32_t window_left, window_right;  // -1: no limit
  float scale_log2;                   // scale * log2(e); with soft cap: softcap * log2(e)
  float softcap_scale;                // scale / softcap
  const float* sinks;
  void* o;  // for the rows of a tile that is not full
  int64_t o_stride_batch, o_stride_token, o_stride_head;
  float* lse;
  int64_t lse_stride_batch, lse_stride_head;

  int32_t
      m_blocks;  // dense: query tiles of a sequence; varlen: bound on the tiles of all sequences
  int32_t num_tiles;  // m_blocks * head_groups * (dense ? batch : 1)
  // Counter, zero at launch and left zero: the tiles that no CTA has begun yet start at gridDim.x +
  // *next_tile.
  int32_t* next_tile;
  // Split kernels only. Keys of a sequence are cut into chunks of equal length; chunk results are
  // combined by the CTA that finishes a tile's last chunk.
  int32_t slots;  // CTAs: chunks are cut on the device so that these are evenly loaded ...
  int32_t
      chunk_tokens;  // ... or, when this is not 0, at its multiples, whatever else is in the batch
  int32_t partial_rows;   // rows of a tile that can be in use
  int32_t* arrivals;      // [tiles], zero at launch and left zero
  float* partial_o;       // [items, partial_rows, tile head dim], not normalised
  float2* partial_stats;  // [items, partial_rows]: maximum (base 2) and sum

  int32_t section;  // heads (of any sequence) whose K and V share the L2 cache; 0: query tiles run
                    // fastest
};

}  // namespace quire::cuda::sm90
