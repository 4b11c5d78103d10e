// Warpgroup matrix products (wgmma, sm_90a), asynchronous: fence, issue, commit, wait<pending
// groups>.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma_shapes.cuh"

namespace quire::cuda {

// Orders register writes before the wgmma that reads them; before the first wgmma of a batch.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Where rows and slabs (64 columns, 128 bytes) of a tile of kRows x kD lie in shared memory; groups
// of 8 rows x 128 bytes are the unit of the swizzle.
//   by slabs  [kD/64][kRows/8][8 x 128 B]: one bulk copy a slab
//   grouped   [kRows/8][kD/64][8 x 128 B]: any multiple of 8 rows is one piece, whatever kD
template <int kRows, int kD, bool kGrouped>
struct TileLayout {
  static constexpr uint32_t kGroupStride = kGrouped ? kD / 64 * 1024 : 1024;
  static constexpr uint32_t kSlabStride = kGrouped ? 1024 : kRows * 128;
  static __device__ __forceinline__ uint32_t row(int r, int slab) {
    return r / 8 * kGroupStride + slab * kSlabStride + r % 8 * 128;
  }
};

// Descriptors, kept as their low halves, the only ones that differ: sums in 32 bits are one
// instruction, and the products of a block can be issued back to back. K-major (Q and K) ...
__device__ __forceinline__ uint32_t k_major_descriptor(uint32_t tile) {
  return static_cast<uint32_t>(wgmma_descriptor(tile, 16, 1024));
}
// ... and MN-major (V).
template <typename Layout>
__device__ __forceinline__ uint32_t mn_major_descriptor(uint32_t tile) {
  return static_cast<uint32_t>(wgmma_descriptor(tile, Layout::kSlabStride, 1024));
}
template <uint32_t kGroupStride = 1024>
__device__ __forceinline__ uint64_t whole_descriptor(uint32_t low) {
  constexpr uint64_t kHigh = wgmma_descriptor(0, 0, kGroupStride);
  return kHigh | low;
}

// S[64, N] = Q[64, D] K[N, D]^T. q: slabs [D/64][64 rows][64], k: N x D in the given layout, both
// swizzled.
template <typename T, int kN, int kD, typename Layout = TileLayout<kN, kD, false>>
__device__ __forceinline__ void wgmma_qk(float (&s)[kN / 2], uint32_t q, uint32_t k) {
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    // 16 columns are 32 bytes inside a slab of 64; descriptors count 16-byte units.
    const int inside = (step % 4) * 2;
    WgmmaShape<T, kN, 0>::ss(s,
                             whole_descriptor(q + inside + (step / 4) * (64 * 128 / 16)),
                             whole_descriptor<Layout::kGroupStride>(
                                 k + inside + (step / 4) * (Layout::kSlabStride / 16)),
                             step != 0);
  }
}

// The same with Q in registers (A fragments).
template <typename T, int kN, int kD, typename Layout = TileLayout<kN, kD, false>>
__device__ __forceinline__ void wgmma_qk_registers(float (&s)[kN / 2],
                                                   const uint32_t (&q)[kD / 16][4],
                                                   uint32_t k) {
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    WgmmaShape<T, kN, 0>::rs(s,
                             q[step],
                             whole_descriptor<Layout::kGroupStride>(
                                 k + step % 4 * 2 + step / 4 * (Layout::kSlabStride / 16)),
                             step != 0);
  }
}

// O[64, D] += P[64, N] V[N, D], P in registers (A fragments), v: N x D in the given layout,
// swizzled, read MN-major. accumulate = 0: O = P V.
template <typename T, int kN, int kD, typename Layout = TileLayout<kN, kD, false>>
__device__ __forceinline__ void wgmma_pv(float (&o)[kD / 2],
                                         const uint32_t (&p)[kN / 16][4],
                                         uint32_t v,
                                         int accumulate = 1) {
#pragma unroll
  for (int step = 0; step < kN / 16; ++step) {
    WgmmaShape<T, kD, 1>::rs(
        o,
        p[step],
        whole_descriptor<Layout::kGroupStride>(v + step * (2 * Layout::kGroupStride / 16)),
        step == 0 ? accumulate : 1);
  }
}

}  // namespace quire::cuda
