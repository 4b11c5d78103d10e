// FlashAttention-3 class forward for Hopper (arXiv 2407.08608): O = softmax(mask(scale Q K^T)) V,
// 16-bit inputs.
//
// * Roles: warpgroup 0 copies by TMA (producer.cuh): warps 0 and 1 stream K and V tiles through
//   rings of stages, warp 2 loads Q. Warpgroups 1..kConsumers own 64 query rows each and keep S, P
//   and O in registers.
// * Tiles: kM = 64 * kConsumers rows (packed GQA: tokens x heads of one group) by kN keys, walked
//   from the last block to the first, so that masked blocks come first.
// * Ping-pong: a named barrier per consumer. A warpgroup issues its products only in its turn, so
//   that the softmax of one runs under the products of the other.
// * Overlap: within a warpgroup O += P(n+1) V(n+1) runs under the softmax of S(n).
// * Bound, 128x128 at d128: 2048 tensor core cycles, 1024 exp2 cycles (hidden).
// * Shared memory: Q (reused for O) kQStages*kM*kD + (kStagesK + kStagesV)*kN*kD 16-bit values,
//   each tile as slabs [kD/64][rows][64], or grouped (TileLayout), swizzled.
#pragma once

#include "kernels/cuda/sm90/epilogue.cuh"
#include "kernels/cuda/sm90/producer.cuh"
#include "kernels/cuda/sm90/schedule.cuh"
#include "kernels/cuda/sm90/split.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda::sm90 {

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
