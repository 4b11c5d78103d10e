// Which query tile a CTA works on, and which keys that tile sees.
#pragma once

#include "kernels/cuda/sm90/params.h"

namespace quire::cuda::sm90 {

struct Tile {
  int batch, head_group, kv_head;
  int token0;            // first query token of the tile within its sequence
  int len_q, len_k;      // lengths of the sequence
  int q_t, q_z;          // tensor map coordinates of query token 0: token and batch; varlen: packed token and 0
  int k_t, k_z;          // ... of key 0 (not paged)
  bool valid;
};

// Finds the sequence that holds tile m of a varlen batch: sequences own ceil(len / tokens) tiles each. All lanes of
// the warp take part. Returns false past the last tile.
__device__ __forceinline__ bool find_varlen_tile(
    const int* cu_q, int batch, int tokens_per_tile, int m, int* sequence, int* block) {
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
  return false;
}

template <int kM>
__device__ __forceinline__ Tile get_tile(const ForwardParams& p, int index) {
  Tile tile;
  const int tokens_per_tile = kM >> p.pack_log2;
  int m;
  if (p.cu_q != nullptr) {
    tile.head_group = index % p.head_groups;
    tile.valid = find_varlen_tile(
        p.cu_q, p.batch, tokens_per_tile, index / p.head_groups, &tile.batch, &m);
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
    tile.valid = true;
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

// Key blocks [min, max) of kN keys seen by query tokens [first, last], and the keys that all of them see:
// a block inside [all_low, all_high) needs no mask.
struct KeyRange {
  int min, max, all_low, all_high;
};
template <int kN>
__device__ __forceinline__ KeyRange key_range(const ForwardParams& p,
                                              const Tile& tile,
                                              int first,
                                              int last) {
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
  return range;
}

}  // namespace quire::cuda::sm90
