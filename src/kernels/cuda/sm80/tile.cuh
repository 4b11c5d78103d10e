// Tiles in shared memory for mma.sync kernels: rows of kD 16-bit values as slabs [kD/64][rows][64]
// of 128-byte rows under the 128-byte swizzle, filled by cp.async and read by ldmatrix without bank
// conflicts.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/ptx.cuh"

namespace quire::cuda::sm80 {

template <int kRows, int kD>
constexpr int kTileBytes = (kD + 63) / 64 * kRows * 128;

// Byte offset of 8 columns starting at column 8*chunk.
template <int kRows>
__device__ __forceinline__ uint32_t tile_offset(int row, int chunk) {
  return (chunk / 8) * (kRows * 128) + swizzle128(row, chunk % 8);
}

// A matrix as load_tile copies it: the 8 columns at which this thread begins. Held instead of the
// matrix's address, so that a main loop keeps one pointer of it and no offsets.
template <int kD>
constexpr int kChunksPerRow = kD % 64 == 0 ? 8 : 4;  // of 8 columns, copied at once by the threads
template <int kD, typename T>
__device__ __forceinline__ const T* thread_part(const T* matrix, int64_t stride) {
  constexpr int kChunks = kChunksPerRow<kD>;
  return matrix + threadIdx.x / kChunks * stride + threadIdx.x % kChunks * 8;
}
// Starts copying rows [0, rows) of a matrix with the given row stride (elements) into a tile of
// kRows rows; the rest, and the columns from head_dim on, become zero. `part`: thread_part of the
// matrix.
template <int kRows, int kD, int kThreads, typename T>
__device__ __forceinline__ void load_tile(
    uint32_t tile, const T* part, int64_t stride, int rows, int head_dim) {
  constexpr int kChunks = kChunksPerRow<kD>, kPasses = kD / 8 / kChunks;
  constexpr int kRowsPerStep = kThreads / kChunks;
  static_assert(kRows % kRowsPerStep == 0 && kRowsPerStep % 8 == 0);
  const int first = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  const uint32_t to = tile + swizzle128(first, chunk);
#pragma unroll
  for (int step = 0; step < kRows / kRowsPerStep; ++step) {
    const bool used = first + step * kRowsPerStep < rows;
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      // As tile_offset of chunk + pass * kChunks: neither sum carries into the other's bits.
      const uint32_t place = (to ^ (pass * kChunks % 8 * 16)) + pass * kChunks / 8 * (kRows * 128) +
                             step * (kRowsPerStep * 128);
      cp_async_16(
          place, part + pass * kChunks * 8, used && (pass * kChunks + chunk) * 8 < head_dim);
    }
    part += kRowsPerStep * stride;
  }
}

// The loads below address a lane's 16 bytes as (lane base) ^ (step within the slab): tiles are
// aligned to 1024 bytes and the swizzle is an xor, so that one register a lane serves all steps.
__device__ __forceinline__ uint32_t step_address(uint32_t lane_base, int step, int slab_bytes) {
  // Opaque to the compiler, which would otherwise keep all four variants in registers through the
  // main loop.
  asm volatile("" : "+r"(lane_base));
  return (lane_base ^ ((step % 4) * 32)) + (step / 4) * slab_bytes;
}

// Operand A: rows [row0, row0+16), columns [16*step, +16) of a row-major tile.
template <int kRows>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], uint32_t tile, int row0, int step) {
  const int lane = threadIdx.x % 32;
  const uint32_t base = tile + swizzle128(lane % 16, lane / 16);
  ldmatrix_x4(a, step_address(base, step, kRows * 128) + row0 * 128);
}
// The same in two parts: the lane's base for the columns from 16*step on (step may be a run-time
// value), and the load of one of the next columns, as long as their 16*step are a power of two in
// number and the first is a multiple of it.
template <int kRows>
__device__ __forceinline__ uint32_t first_step(uint32_t tile, int step) {
  const int lane = threadIdx.x % 32;
  return step_address(tile + swizzle128(lane % 16, lane / 16), step, kRows * 128);
}
template <int kRows>
__device__ __forceinline__ void load_a_at(uint32_t (&a)[4], uint32_t base, int row0, int step) {
  ldmatrix_x4(a, step_address(base, step, kRows * 128) + row0 * 128);
}
// The inverse: a fragment of operand A to where load_a_at reads it.
template <int kRows>
__device__ __forceinline__ void store_a(const uint32_t (&a)[4], uint32_t base, int row0, int step) {
  const uint32_t address = step_address(base, step, kRows * 128) + row0 * 128;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  stmatrix_x4(address, a[0], a[1], a[2], a[3]);
#else
  // `address` is of row lane % 16 and chunk lane / 16; the fragment's values of this lane belong to
  // rows lane / 4 and + 8 of both chunks.
  int lane = threadIdx.x % 32;
  asm volatile("" : "+r"(lane));  // or a main loop would keep all that follows in registers
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int source = lane / 4 + 8 * (i % 2) + 16 * (i / 2);
    store_shared_4(__shfl_sync(0xffffffffu, address, source) + lane % 4 * 4, a[i]);
  }
#endif
}
// Operand A from a tile stored transposed: A[i][k] = tile[k][i], rows i in [row0, +16), k in
// [16*step, +16).
template <int kRows>
__device__ __forceinline__ void load_a_trans(uint32_t (&a)[4], uint32_t tile, int row0, int step) {
  const int lane = threadIdx.x % 32;
  const uint32_t base = tile + swizzle128(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  ldmatrix_x4_trans(a, step_address(base, row0 / 16, kRows * 128) + step * (16 * 128));
}
// Operand B for 16 columns n0..n0+15 from tile[n][k] (keys by head dim): b[0..1] columns n0..+7,
// b[2..3] the rest.
template <int kRows>
__device__ __forceinline__ void load_b(uint32_t (&b)[4], uint32_t tile, int n0, int step) {
  const int lane = threadIdx.x % 32;
  const uint32_t base = tile + swizzle128(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  ldmatrix_x4(b, step_address(base, step, kRows * 128) + n0 * 128);
}
// Operand B for 16 columns n0..n0+15 from tile[k][n] (values by head dim).
template <int kRows>
__device__ __forceinline__ void load_b_trans(uint32_t (&b)[4], uint32_t tile, int n0, int step) {
  const int lane = threadIdx.x % 32;
  const uint32_t base = tile + swizzle128(lane % 16, lane / 16);
  ldmatrix_x4_trans(b, step_address(base, n0 / 16, kRows * 128) + step * (16 * 128));
}
// As load_b_trans, for n0 that is a multiple of 8 (columns past the tile's last slab are garbage
// that the caller does not use).
template <int kRows>
__device__ __forceinline__ void load_b_trans_columns(uint32_t (&b)[4],
                                                     uint32_t tile,
                                                     int n0,
                                                     int step) {
  const int lane = threadIdx.x % 32;
  const int chunk = n0 / 8 + lane / 16;
  ldmatrix_x4_trans(b, tile + tile_offset<kRows>(step * 16 + lane % 16, chunk));
}

// Writes one 16-row fragment (kCount = columns/2 values a thread) as 16 bits into rows row0.. of a
// tile.
template <int kRows, typename T, int kCount>
__device__ __forceinline__ void store_fragment(uint32_t tile,
                                               int row0,
                                               int chunk0,
                                               const float (&d)[kCount]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t address =
          tile + tile_offset<kRows>(row0 + lane / 4 + 8 * r, chunk0 + j) + (lane % 4) * 4;
      store_shared_4(address, pack2<T>(d[4 * j + 2 * r], d[4 * j + 2 * r + 1]));
    }
  }
}

// Copies kRows rows of a tile to global memory, 16 bytes a thread and step, by `threads` threads
// numbered `thread`.
template <int kTileRows, int kD, typename T, typename RowPointer>
__device__ __forceinline__ void copy_rows_out(uint32_t tile,
                                              int row0,
                                              int rows,
                                              int thread,
                                              int threads,
                                              int head_dim,
                                              RowPointer row_pointer) {
  constexpr int kChunks = kD / 8;
  for (int index = thread; index < rows * kChunks; index += threads) {
    const int row = row0 + index / kChunks, chunk = index % kChunks;
    T* pointer = row_pointer(row);
    if (pointer == nullptr || chunk * 8 >= head_dim) continue;
    *reinterpret_cast<uint4*>(pointer + chunk * 8) =
        load_shared_16(tile + tile_offset<kTileRows>(row, chunk));
  }
}

}  // namespace quire::cuda::sm80
