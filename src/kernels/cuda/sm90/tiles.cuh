// Which query tile a CTA works on, and which keys that tile sees.
#pragma once

#include <math_constants.h>

#include "kernels/cuda/sm90/params.h"

namespace quire::cuda::sm90 {

struct Tile {
  int batch, head_group, kv_head;
  int token0;        // first query token of the tile within its sequence
  int len_q, len_k;  // lengths of the sequence
  int q_t,
      q_z;  // tensor map coordinates of query token 0: token and batch; varlen: packed token and 0
  int k_t, k_z;  // ... of key 0 (not paged)
  bool valid;
  int total;  // number of tiles there are, known when !valid
  // Split kernels: this item is chunk `split` of num_splits, key blocks from first_block on.
  int split, num_splits, first_block, end_block;
  int number;  // of the tile, over all sequences
  int item;    // the item's index: where its partial result goes
};

// Finds the sequence that holds tile m of a varlen batch: sequences own ceil(len / tokens) tiles
// each. All lanes of the warp take part. Returns false past the last tile.
__device__ __forceinline__ bool find_varlen_tile(
    const int* cu_q, int batch, int tokens_per_tile, int m, int* sequence, int* block, int* total) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int first = 0; first < batch; first += 32) {
    const int b = first + lane;
    int tiles = 0;
    if (b < batch) tiles = (cu_q[b + 1] - cu_q[b] + tokens_per_tile - 1) / tokens_per_tile;
    int end = tiles;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, end, step);
      if (lane >= step) end += other;
    }
    const unsigned owner = __ballot_sync(0xffffffffu, before + end > m);
    if (owner != 0) {
      const int source = __ffs(owner) - 1;
      const int own_start = before + end - tiles;
      const int own_tiles = __shfl_sync(0xffffffffu, tiles, source);
      *sequence = first + source;
      // Longest first: the last query tile of a sequence sees the most keys.
      *block = own_tiles - 1 - (m - __shfl_sync(0xffffffffu, own_start, source));
      return true;
    }
    before += __shfl_sync(0xffffffffu, end, 31);
  }
  *total = before;
  return false;
}

template <int kM>
__device__ __forceinline__ Tile get_tile(const ForwardParams& p, int index) {
  Tile tile;
  const int tokens_per_tile = kM >> p.pack_log2;
  int m;
  tile.valid = index < p.num_tiles;
  tile.total = p.num_tiles;
  if (!tile.valid && p.cu_q == nullptr) return tile;
  if (p.cu_q != nullptr) {
    tile.head_group = index % p.head_groups;
    tile.valid = find_varlen_tile(
        p.cu_q, p.batch, tokens_per_tile, index / p.head_groups, &tile.batch, &m, &tile.total);
    tile.total *= p.head_groups;
    if (!tile.valid) return tile;
    const int start = p.cu_q[tile.batch];
    tile.len_q = p.cu_q[tile.batch + 1] - start;
    tile.q_t = start;
    tile.q_z = 0;
  } else {
    int pair;  // (batch, head group)
    if (p.section == 0) {
      pair = index / p.m_blocks;
      m = index - pair * p.m_blocks;
    } else {
      const int pairs = p.head_groups * p.batch;
      const int per_section = p.section * p.m_blocks;
      const int section = index / per_section;
      const int inside = index - section * per_section;
      const int heads = min(p.section, pairs - section * p.section);
      m = p.m_blocks - 1 - inside / heads;
      pair = section * p.section + inside % heads;
    }
    tile.batch = pair / p.head_groups;
    tile.head_group = pair - tile.batch * p.head_groups;
    tile.len_q = p.max_len_q;
    tile.q_t = 0;
    tile.q_z = tile.batch;
  }
  tile.token0 = m * tokens_per_tile;
  tile.kv_head = (tile.head_group << p.pack_log2) / p.group;
  const int stored = p.cu_k != nullptr ? p.cu_k[tile.batch + 1] - p.cu_k[tile.batch] : p.max_len_k;
  tile.len_k = p.seqused_k != nullptr ? p.seqused_k[tile.batch] : stored;
  tile.k_t = p.cu_k != nullptr ? p.cu_k[tile.batch] : 0;
  tile.k_z = p.cu_k != nullptr ? 0 : tile.batch;
  return tile;
}

// ---- split keys
// ---------------------------------------------------------------------------------------------------

// a / b for 0 <= a < 2^21, 0 < b: exact, since a + 0.5 is further from a multiple of b than the
// error of the division. A third of the instructions.
__device__ __forceinline__ int divide_small(int a, int b) {
  return static_cast<int>(__fdividef(static_cast<float>(a) + 0.5f, static_cast<float>(b)));
}

// Lengths of sequence b, and the key blocks that its queries can see.
struct SplitSequence {
  int len_q, len_k, low_block, blocks;
};
template <int kN>
__device__ __forceinline__ SplitSequence split_sequence(const ForwardParams& p, int b) {
  SplitSequence s = {0, 0, 0, 0};
  if (b >= p.batch) return s;
  s.len_q = p.cu_q != nullptr ? p.cu_q[b + 1] - p.cu_q[b] : p.max_len_q;
  const int stored = p.cu_k != nullptr ? p.cu_k[b + 1] - p.cu_k[b] : p.max_len_k;
  s.len_k = p.seqused_k != nullptr ? p.seqused_k[b] : stored;
  if (p.window_left >= 0) {
    s.low_block = max(0, s.len_k - s.len_q - p.window_left) / kN;
    if (p.chunk_tokens != 0) s.low_block &= ~(p.chunk_tokens / kN - 1);
  }
  s.blocks = (s.len_k + kN - 1) / kN - s.low_block;
  return s;
}

// Tiles of 64 rows of one sequence.
__device__ __forceinline__ int split_tiles(const ForwardParams& p, const SplitSequence& s) {
  const int log2 = 6 - p.pack_log2;
  return ((s.len_q + (1 << log2) - 1) >> log2) * p.head_groups;
}

constexpr int kPlanCandidates = 15;

// Blocks of kN keys per chunk: by the lengths of the whole batch, or fixed. All lanes of the warp
// take part.
//
// Candidates cut the longest sequence into s equal chunks. The time of a candidate, in blocks, is
// the smaller of two bounds: waves of full chunks, and an even share of all work plus one chunk. An
// item costs `overhead` blocks more than its keys: filling the pipeline, and the partial result,
// which grows with the rows in use.
//
// kMerges: chunks are fixed, but a CTA may take all of a sequence, which changes no bit.
template <int kN, bool kMerges>
__device__ __forceinline__ int plan_chunk(const ForwardParams& p) {
  if (!kMerges && p.chunk_tokens != 0) return p.chunk_tokens / kN;
  const int lane = threadIdx.x % 32;
  // The first 32 sequences stay in registers: for most batches the search reads memory once.
  const SplitSequence first = split_sequence<kN>(p, lane);
  const int first_tiles = split_tiles(p, first);
  int work = first_tiles * first.blocks, longest = max(1, first.blocks), tiles = first_tiles;
#pragma unroll 1
  for (int b = lane + 32; b < p.batch; b += 32) {
    const SplitSequence s = split_sequence<kN>(p, b);
    tiles += split_tiles(p, s);
    work += split_tiles(p, s) * s.blocks;
    longest = max(longest, s.blocks);
  }
  work = __reduce_add_sync(0xffffffffu, work);
  tiles = __reduce_add_sync(0xffffffffu, tiles);
  longest = __reduce_max_sync(0xffffffffu, longest);
  if constexpr (kMerges) {
    const int chunk = p.chunk_tokens / kN;
    const float share = static_cast<float>(work) / p.slots, overhead = 1.0f + p.partial_rows / 16;
    const float split = share * (1.0f + overhead / chunk) + chunk;
    const float waves = divide_small(tiles + p.slots - 1, p.slots) * (longest + 1.0f);
    return fminf(waves, share + longest) <= split ? max(chunk, longest) : chunk;
  }
  // Little work is cut into one wave of chunks at once: the search below would take longer than it
  // saves.
  if (work <= 8 * p.slots) return max(256 / kN, divide_small(work + p.slots - 1, p.slots));
  const float share = static_cast<float>(work) / p.slots, overhead = 2.0f + p.partial_rows / 16;
  const auto chunk_of = [&](int step) {
    const int cuts = (2 + step % 2) << (step / 2) >> 1;  // 1 2 3 4 6 8 12 16 24 ...
    return divide_small(longest + cuts - 1, cuts);
  };
  const auto time_of = [&](int items, int chunk) {
    const float waves = divide_small(items + p.slots - 1, p.slots) * (chunk + overhead);
    return fminf(waves, share + overhead * items / p.slots + chunk);
  };
  // As many equal chunks as fill the CTAs once are good enough for most batches. Whole sequences
  // have no partial results to pay for.
  const int cuts = max(1, divide_small(p.slots, tiles));
  const int simple = divide_small(longest + cuts - 1, cuts);
  const float rounds = divide_small(tiles * cuts + p.slots - 1, p.slots);
  if (rounds * (simple + (cuts > 1 ? overhead : 2.0f)) <= 1.1f * share) return simple;
  const int most_items = 4 * p.slots + tiles;  // the workspace holds no more
  if (p.batch <= 32) {
    // A candidate a lane; sequences come by shuffles, eight at a time to hide their latency.
    const int chunk = chunk_of(lane + 1);
    const uint32_t inverse = 0xffffffffu / chunk + 1;  // x / chunk = high half of x * inverse
    int items = 0;
#pragma unroll 1
    for (int b = 0; b < p.batch; b += 8) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int blocks = __shfl_sync(0xffffffffu, first.blocks, b + i);
        const int cut = __umulhi(blocks + chunk - 1, inverse);
        items += __shfl_sync(0xffffffffu, first_tiles, b + i) * max(1, chunk == 1 ? blocks : cut);
      }
    }
    const bool possible = lane < kPlanCandidates && items <= most_items;
    const float time = possible ? time_of(items, chunk) : CUDART_INF_F;
    unsigned chosen = __ballot_sync(0xffffffffu, time <= 1.04f * share);
    if (chosen == 0) {
      // Times are positive: their bits are in the order of the values.
      const unsigned least = __reduce_min_sync(0xffffffffu, __float_as_uint(time));
      chosen = __ballot_sync(0xffffffffu, __float_as_uint(time) == least);
    }
    return __shfl_sync(0xffffffffu, chunk, __ffs(chosen) - 1);
  }
  int best = longest;
  float best_time = CUDART_INF_F;
#pragma unroll 1
  for (int step = 1; step <= kPlanCandidates; ++step) {
    const int chunk = chunk_of(step);
    int items = first_tiles * max(1, divide_small(first.blocks + chunk - 1, chunk));
#pragma unroll 1
    for (int b = lane + 32; b < p.batch; b += 32) {
      const SplitSequence s = split_sequence<kN>(p, b);
      items += split_tiles(p, s) * max(1, divide_small(s.blocks + chunk - 1, chunk));
    }
    items = __reduce_add_sync(0xffffffffu, items);
    if (items > most_items) break;
    if (share + overhead * items / p.slots >= best_time) break;  // no more chunks can be faster
    const float time = time_of(items, chunk);
    if (time < best_time) {
      best_time = time;
      best = chunk;
    }
    if (chunk == 1 || time <= 1.04f * share) break;
  }
  return best;
}

// Item `index` of the list (sequence, tile of queries and heads, chunk).
template <int kN>
__device__ __forceinline__ Tile get_item(const ForwardParams& p, int index, int chunk) {
  const int lane = threadIdx.x % 32;
  Tile tile;
  int items_before = 0, tiles_before = 0;
  for (int first = 0; first < p.batch; first += 32) {
    const SplitSequence s = split_sequence<kN>(p, first + lane);
    const int tiles = split_tiles(p, s);
    const int splits = max(1, divide_small(s.blocks + chunk - 1, chunk));
    int items_end = tiles * splits, tiles_end = tiles;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other_items = __shfl_up_sync(0xffffffffu, items_end, step);
      const int other_tiles = __shfl_up_sync(0xffffffffu, tiles_end, step);
      if (lane >= step) {
        items_end += other_items;
        tiles_end += other_tiles;
      }
    }
    const unsigned owner = __ballot_sync(0xffffffffu, items_before + items_end > index);
    if (owner != 0) {
      const int source = __ffs(owner) - 1;
      const auto take = [&](int x) { return __shfl_sync(0xffffffffu, x, source); };
      tile.batch = first + source;
      tile.num_splits = take(splits);
      const int local = index - items_before - take(items_end - tiles * splits);
      const int local_tile = tile.num_splits == 1 ? local : local / tile.num_splits;
      tile.split = local - local_tile * tile.num_splits;
      tile.item = index;
      tile.number = tiles_before + take(tiles_end - tiles) + local_tile;
      const int m = divide_small(local_tile, p.head_groups);
      tile.head_group = local_tile - m * p.head_groups;
      tile.token0 = m << (6 - p.pack_log2);
      tile.len_q = take(s.len_q);
      tile.len_k = take(s.len_k);
      // Equal chunks within a sequence, unless their length is prescribed.
      const int blocks = take(s.blocks);
      const int own =
          p.chunk_tokens != 0 ? chunk : divide_small(blocks + tile.num_splits - 1, tile.num_splits);
      tile.first_block = take(s.low_block) + tile.split * own;
      tile.end_block = tile.first_block + own;
      tile.kv_head = (tile.head_group << p.pack_log2) / p.group;
      tile.q_t = p.cu_q != nullptr ? p.cu_q[tile.batch] : 0;
      tile.q_z = p.cu_q != nullptr ? 0 : tile.batch;
      tile.k_t = p.cu_k != nullptr ? p.cu_k[tile.batch] : 0;
      tile.k_z = p.cu_k != nullptr ? 0 : tile.batch;
      tile.valid = true;
      return tile;
    }
    items_before += __shfl_sync(0xffffffffu, items_end, 31);
    tiles_before += __shfl_sync(0xffffffffu, tiles_end, 31);
  }
  tile.valid = false;
  tile.total = items_before;
  return tile;
}

// Key blocks [min, max) of kN keys seen by query tokens [first, last], and the keys that all of
// them see: a block inside [all_low, all_high) needs no mask.
struct KeyRange {
  int min, max, all_low, all_high;
};
template <int kN, bool kSplit>
__device__ __forceinline__ KeyRange
key_range(const ForwardParams& p, const Tile& tile, int first, int last) {
  const int shift = tile.len_k - tile.len_q;
  KeyRange range;
  int high = tile.len_k;
  int low = 0;
  range.all_high = tile.len_k;
  range.all_low = 0;
  if (p.window_right >= 0) {
    high = min(high, last + shift + p.window_right + 1);
    range.all_high = min(range.all_high, first + shift + p.window_right + 1);
  }
  if (p.window_left >= 0) {
    low = max(low, first + shift - p.window_left);
    range.all_low = max(0, last + shift - p.window_left);
  }
  range.min = low / kN;
  range.max = max(range.min, (high + kN - 1) / kN);
  if (high <= low) range.max = range.min;
  if constexpr (kSplit) {
    range.min = max(range.min, tile.first_block);
    range.max = max(range.min, min(range.max, tile.end_block));
  }
  return range;
}

// The order in which the key blocks of a range are walked: from the last to the first, so that
// masked blocks come first. Merged: chunk by chunk from the first on, each from its last block to
// its first. next_block returns less than range.min after the last one.
template <int kN, bool kMerges>
__device__ __forceinline__ int first_block(const KeyRange& range) {
  if constexpr (!kMerges) return range.max - 1;
  constexpr int kChunk = kInvariantChunk / kN;
  return min(range.max, (range.min / kChunk + 1) * kChunk) - 1;
}
template <int kN, bool kMerges>
__device__ __forceinline__ int next_block(const KeyRange& range, int n) {
  if constexpr (!kMerges) return n - 1;
  constexpr int kChunk = kInvariantChunk / kN;
  if (n > range.min && n % kChunk != 0) return n - 1;
  const int next_chunk = (n / kChunk + 1) * kChunk;
  return next_chunk >= range.max ? range.min - 1 : min(range.max, next_chunk + kChunk) - 1;
}

}  // namespace quire::cuda::sm90
