// Bulk tensor copies (TMA, sm_90): global <-> shared tiles described by a CUtensorMap. Coordinates
// are elements, innermost first. Elements outside the tensor read as zero and are not written.
#pragma once

#include <cuda.h>

#include "kernels/cuda/ptx.cuh"

namespace quire::cuda {

// L2 eviction priorities as the copy engine encodes them (CUTLASS: TMA::CacheHintSm90).
constexpr uint64_t kCacheEvictNormal = 0x1000000000000000ull;
constexpr uint64_t kCacheEvictFirst = 0x12F0000000000000ull;
constexpr uint64_t kCacheEvictLast = 0x14F0000000000000ull;

__device__ __forceinline__ void tma_prefetch_descriptor(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(reinterpret_cast<uint64_t>(map)) : "memory");
}

__device__ __forceinline__ void tma_load_4d(uint32_t smem,
                                            const CUtensorMap* map,
                                            uint32_t barrier,
                                            int c0,
                                            int c1,
                                            int c2,
                                            int c3,
                                            uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(smem),
      "l"(reinterpret_cast<uint64_t>(map)),
      "r"(barrier),
      "r"(c0),
      "r"(c1),
      "r"(c2),
      "r"(c3),
      "l"(cache_hint)
      : "memory");
}

__device__ __forceinline__ void tma_load_5d(uint32_t smem,
                                            const CUtensorMap* map,
                                            uint32_t barrier,
                                            int c0,
                                            int c1,
                                            int c2,
                                            int c3,
                                            int c4,
                                            uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(smem),
      "l"(reinterpret_cast<uint64_t>(map)),
      "r"(barrier),
      "r"(c0),
      "r"(c1),
      "r"(c2),
      "r"(c3),
      "r"(c4),
      "l"(cache_hint)
      : "memory");
}

__device__ __forceinline__ void tma_store_5d(
    const CUtensorMap* map, uint32_t smem, int c0, int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::
          "l"(reinterpret_cast<uint64_t>(map)),
      "r"(smem),
      "r"(c0),
      "r"(c1),
      "r"(c2),
      "r"(c3),
      "r"(c4)
      : "memory");
}

__device__ __forceinline__ void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until this thread's committed stores have finished reading shared memory (it may then be
// overwritten).
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

}  // namespace quire::cuda
