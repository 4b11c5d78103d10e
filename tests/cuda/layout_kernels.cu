// One-tile kernels for layout_test.cc: one product through the same wrappers, descriptors and
// tensor layout as the attention kernels use, with shared memory filled by ordinary stores at the
// addresses that fragment.cuh names.
#include "cuda/layout_kernels.h"
#include "kernels/cuda/wgmma.cuh"

namespace quire::cuda {
namespace {

using T = __nv_bfloat16;

// [rows][kD] row-major to slabs [kD/64][rows][64] under the swizzle.
template <int kD>
__device__ void fill(char* smem, const T* matrix, int rows) {
  for (int i = threadIdx.x; i < rows * kD; i += blockDim.x) {
    const int row = i / kD, column = i % kD;
    const uint32_t at =
        column / 64 * rows * 128 + swizzle128(row, column % 64 / 8) + column % 8 * 2;
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
template <int kN, int kD>
__global__ void qk_kernel(const T* q, const T* k, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char smem[];
  char* const k_tile = smem + 64 * kD * 2;
  fill<kD>(smem, q, 64);
  fill<kD>(k_tile, k, kN);
  fence_async_proxy();
  __syncthreads();
  float s[kN / 2];
  wgmma_fence();
  wgmma_qk<T, kN, kD>(
      s, k_major_descriptor(smem_address(smem)), k_major_descriptor(smem_address(k_tile)));
  wgmma_commit();
  wgmma_wait<0>();
  write(out, s);
#endif
}

// out[64][kD] = p[64][kN] v[kN][kD], p from registers
template <int kN, int kD>
__global__ void pv_kernel(const T* p, const T* v, float* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char smem[];
  fill<kD>(smem, v, kN);
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
  wgmma_pv<T, kN, kD>(o, fragments, mn_major_descriptor<kN>(smem_address(smem)));
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

int run_qk(int n, int d, const void* q, const void* k, float* out) {
  const int smem = (64 + n) * d * 2;
  if (n == 64 && d == 64) return launch(qk_kernel<64, 64>, smem, q, k, out);
  if (n == 128 && d == 128) return launch(qk_kernel<128, 128>, smem, q, k, out);
  if (n == 80 && d == 256) return launch(qk_kernel<80, 256>, smem, q, k, out);
  if (n == 176 && d == 128) return launch(qk_kernel<176, 128>, smem, q, k, out);
  return -1;
}

int run_pv(int n, int d, const void* p, const void* v, float* out) {
  const int smem = n * d * 2;
  if (n == 64 && d == 64) return launch(pv_kernel<64, 64>, smem, p, v, out);
  if (n == 128 && d == 128) return launch(pv_kernel<128, 128>, smem, p, v, out);
  if (n == 80 && d == 256) return launch(pv_kernel<80, 256>, smem, p, v, out);
  return -1;
}

}  // namespace quire::cuda
