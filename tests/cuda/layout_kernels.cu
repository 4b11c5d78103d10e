// One-tile kernels for layout_test.cc: one product through the same wrappers, descriptors and
// tensor layout as the attention kernels use, with shared memory filled by ordinary stores at the
// addresses that fragment.cuh names.
#include "cuda/layout_kernels.h"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda {
namespace {

using T = __nv_bfloat16;

// [kRows][kD] row-major to a tile under the swizzle.
template <int kRows, int kD, bool kGrouped>
__device__ void fill(char* smem, const T* matrix) {
  for (int i = threadIdx.x; i < kRows * kD; i += blockDim.x) {
    const int row = i / kD, column = i % kD;
    const uint32_t at = TileLayout<kRows, kD, kGrouped>::row(row / 8 * 8, column / 64) +
                        swizzle128(row % 8, column % 64 / 8) + column % 8 * 2;
    *reinterpret_cast<T*>(smem + at) = matrix[i];
  }
}

template <int kCount>
__device__ void write(float* out, const float (&d)[kCount]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int j = 0; j < kCount; ++j) {
    const int row = 16 * warp + fragment_row(lane, j % 4);
    const int column = j / 4 * 8 + fragment_column(lane, j % 4);
    out[row * (2 * kCount) + column] = d[j];
  }
}

// out[64][kN] = q[64][kD] k[kN][kD]^T
template <int kN, int kD, bool kGrouped>
__global__ void qk_kernel(const T* q, const T* k, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char smem[];
  char* const k_tile = smem + 64 * kD * 2;
  fill<64, kD, false>(smem, q);
  fill<kN, kD, kGrouped>(k_tile, k);
  fence_async_proxy();
  __syncthreads();
  float s[kN / 2];
  wgmma_fence();
  wgmma_qk<T, kN, kD, TileLayout<kN, kD, kGrouped>>(
      s, k_major_descriptor(smem_address(smem)), k_major_descriptor(smem_address(k_tile)));
  wgmma_commit();
  wgmma_wait<0>();
  write(out, s);
#endif
}

// out[64][kD] = p[64][kN] v[kN][kD], p from registers
template <int kN, int kD, bool kGrouped>
__global__ void pv_kernel(const T* p, const T* v, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char smem[];
  fill<kN, kD, kGrouped>(smem, v);
  fence_async_proxy();
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint32_t fragments[kN / 16][4];
  for (int step = 0; step < kN / 16; ++step) {
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * warp + lane / 4 + 8 * (i % 2);
      const int column = 16 * step + 8 * (i / 2) + 2 * (lane % 4);
      fragments[step][i] = *reinterpret_cast<const uint32_t*>(p + row * kN + column);
    }
  }
  float o[kD / 2] = {};
  wgmma_fence();
  using Layout = TileLayout<kN, kD, kGrouped>;
  wgmma_pv<T, kN, kD, Layout>(o, fragments, mn_major_descriptor<Layout>(smem_address(smem)));
  wgmma_commit();
  wgmma_wait<0>();
  write(out, o);
#endif
}

template <typename Kernel>
int launch(Kernel kernel, int smem, const void* a, const void* b, float* out) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem);
  kernel<<<1, 128, smem>>>(static_cast<const T*>(a), static_cast<const T*>(b), out);
  return static_cast<int>(cudaDeviceSynchronize());
}

}  // namespace

int run_qk(int n, int d, bool grouped, const void* q, const void* k, float* out) {
  const int smem = (64 + n) * d * 2;
  const auto run = [&](auto by_slabs, auto in_groups) {
    return grouped ? launch(in_groups, smem, q, k, out) : launch(by_slabs, smem, q, k, out);
  };
  if (n == 64 && d == 64) return run(qk_kernel<64, 64, false>, qk_kernel<64, 64, true>);
  if (n == 128 && d == 128) return run(qk_kernel<128, 128, false>, qk_kernel<128, 128, true>);
  if (n == 80 && d == 256) return run(qk_kernel<80, 256, false>, qk_kernel<80, 256, true>);
  if (n == 176 && d == 128) return run(qk_kernel<176, 128, false>, qk_kernel<176, 128, true>);
  return -1;
}

int run_pv(int n, int d, bool grouped, const void* p, const void* v, float* out) {
  const int smem = n * d * 2;
  const auto run = [&](auto by_slabs, auto in_groups) {
    return grouped ? launch(in_groups, smem, p, v, out) : launch(by_slabs, smem, p, v, out);
  };
  if (n == 64 && d == 64) return run(pv_kernel<64, 64, false>, pv_kernel<64, 64, true>);
  if (n == 128 && d == 128) return run(pv_kernel<128, 128, false>, pv_kernel<128, 128, true>);
  if (n == 80 && d == 256) return run(pv_kernel<80, 256, false>, pv_kernel<80, 256, true>);
  return -1;
}

}  // namespace quire::cuda
