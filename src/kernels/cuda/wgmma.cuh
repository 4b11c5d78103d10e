// Warpgroup matrix products (wgmma, sm_90a), asynchronous: fence, issue, commit, wait<pending groups>.
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

// S[64, N] = Q[64, D] K[N, D]^T. q: slabs [D/64][64 rows][64], k: slabs [D/64][N rows][64], both swizzled.
template <typename T, int kN, int kD>
__device__ __forceinline__ void wgmma_qk(float (&s)[kN / 2], uint32_t q, uint32_t k) {
  const uint64_t dq = wgmma_descriptor(q, 16, 1024);
  const uint64_t dk = wgmma_descriptor(k, 16, 1024);
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    // 16 columns are 32 bytes inside a slab of 64; descriptors count 16-byte units.
    const int inside = (step % 4) * 2;
    WgmmaShape<T, kN, 0>::ss(s,
                             dq + inside + (step / 4) * (64 * 128 / 16),
                             dk + inside + (step / 4) * (kN * 128 / 16),
                             step != 0);
  }
}

// O[64, D] += P[64, N] V[N, D], P in registers (A fragments), v: slabs [D/64][N rows][64] swizzled, read MN-major.
template <typename T, int kN, int kD>
__device__ __forceinline__ void wgmma_pv(float (&o)[kD / 2],
                                         const uint32_t (&p)[kN / 16][4],
                                         uint32_t v) {
  const uint64_t dv = wgmma_descriptor(v, kN * 128, 1024);
#pragma unroll
  for (int step = 0; step < kN / 16; ++step) {
    WgmmaShape<T, kD, 1>::rs(o, p[step], dv + step * (16 * 128 / 16), 1);
  }
}

}  // namespace quire::cuda
