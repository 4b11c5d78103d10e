// Who holds what: the register layout of 16-bit matrix instructions, the 128-byte swizzle, and the
// 64-bit shared memory descriptors of wgmma. All are plain integer functions; tests/cuda checks
// them against the hardware.
//
// Accumulator D of m16n8 (mma.sync) and of one warp of m64nN (wgmma): element i of group j (columns
// 8j..8j+7) is
//   row  lane/4 + 8*(i/2),  column 8j + 2*(lane%4) + i%2          (wgmma: + 16 rows per warp of the
//   warpgroup)
// Operand A, k16: registers {row k0-7, row+8 k0-7, row k8-15, row+8 k8-15}, a pair of columns each,
// so two groups of D packed to 16 bits ARE the A operand of the next product: P needs no shuffle.
#pragma once

#include <stdint.h>

namespace quire::cuda {

#if defined(__CUDACC__)
#define QUIRE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define QUIRE_HOST_DEVICE inline
#endif

QUIRE_HOST_DEVICE constexpr int fragment_row(int lane, int i) { return lane / 4 + 8 * (i / 2); }
QUIRE_HOST_DEVICE constexpr int fragment_column(int lane, int i) { return 2 * (lane % 4) + i % 2; }

// Byte offset of 16-byte chunk `chunk` (0..7) of row `row` in a slab of 128-byte rows under the
// 128-byte swizzle: the chunk index is xored with the row modulo 8. Slabs start at multiples of
// 1024 bytes.
QUIRE_HOST_DEVICE constexpr uint32_t swizzle128(int row, int chunk) {
  return static_cast<uint32_t>(row * 128 + ((chunk ^ (row & 7)) << 4));
}

// Descriptor of a wgmma operand in 128-byte-swizzled slabs. `stride_bytes`: between groups of 8
// rows (1024). `leading_bytes`: for MN-major operands the distance between slabs of 64 columns;
// ignored for K-major ones.
QUIRE_HOST_DEVICE constexpr uint64_t wgmma_descriptor(uint32_t address,
                                                      uint32_t leading_bytes,
                                                      uint32_t stride_bytes) {
  return static_cast<uint64_t>((address & 0x3FFFF) >> 4) |
         static_cast<uint64_t>((leading_bytes & 0x3FFFF) >> 4) << 16 |
         static_cast<uint64_t>((stride_bytes & 0x3FFFF) >> 4) << 32 |
         static_cast<uint64_t>(1) << 62;
}

}  // namespace quire::cuda
