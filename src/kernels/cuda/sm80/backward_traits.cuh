// Tiles of the backward pass, and products of its warps.
#pragma once

#include "kernels/cuda/sm80/tile.cuh"

namespace quire::cuda::sm80 {

template <typename T_, int kD_, int kM_, int kN_>
struct BackwardTraits {
  using T = T_;
  static constexpr int kD = kD_, kM = kM_, kN = kN_;
  static constexpr int kWarps = 8, kThreads = 256;
  static constexpr int kGroups = kN / 32, kParts = kWarps / kGroups;  // warps of a group
  static constexpr int kQueries = kM / kParts;  // a warp's part of the products with Q and dO ...
  static constexpr int kColumns = kD / kParts;  // ... and of dK and dV
  static constexpr int kQueryBytes = kTileBytes<kM, kD>, kKeyBytes = kTileBytes<kN, kD>;
  static constexpr int kScoreBytes = kTileBytes<kN, kM>;  // P^T or dS^T in 16 bits
  static constexpr int kStatBytes = 2 * kM * 4;
  // K, V, two stages of (Q, dO), of dS^T and of (lse, delta), one of P^T
  static constexpr int kSmemBytes =
      2 * kKeyBytes + 4 * kQueryBytes + 3 * kScoreBytes + 2 * kStatBytes + 1024;
  static constexpr int kDqM = 64, kDqN = 64, kDqThreads = 128;
  static constexpr int kDqSmemBytes = 2 * kTileBytes<kDqM, kD> + 2 * kTileBytes<kDqN, kD> + 1024;
};

// d[16 x columns] += A (fragments of 16 x 16*kSteps) B, B = tile[k][n] from column n0 on.
template <typename T, int kRows, int kSteps, int kColumns>
__device__ __forceinline__ void accumulate(float (&d)[kColumns / 2],
                                           const uint32_t (&a)[kSteps][4],
                                           uint32_t tile,
                                           int n0) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      uint32_t b[4];
      load_b_trans<kRows>(b, tile, n0 + 16 * n, step);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(d[8 * n]), a[step], b[0], b[1]);
      mma_16816<T>(reinterpret_cast<float(&)[4]>(d[8 * n + 4]), a[step], b[2], b[3]);
    }
  }
}

// d[kFragments x 16 x kColumns] = A B^T over kD, A = tile_a[row][d], B = tile_b[column][d]. Both
// begin at a row that is a multiple of 16.
template <typename T, int kRowsA, int kRowsB, int kD, int kColumns, int kFragments>
__device__ __forceinline__ void scores(float (&d)[kFragments][kColumns / 2],
                                       uint32_t tile_a,
                                       uint32_t tile_b) {
#pragma unroll
  for (int f = 0; f < kFragments; ++f) {
#pragma unroll
    for (int j = 0; j < kColumns / 2; ++j) d[f][j] = 0.0f;
  }
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    uint32_t a[kFragments][4];
#pragma unroll
    for (int f = 0; f < kFragments; ++f) load_a<kRowsA>(a[f], tile_a, 16 * f, step);
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      uint32_t b[4];
      load_b<kRowsB>(b, tile_b, 16 * n, step);
#pragma unroll
      for (int f = 0; f < kFragments; ++f) {
        mma_16816<T>(reinterpret_cast<float(&)[4]>(d[f][8 * n]), a[f], b[0], b[1]);
        mma_16816<T>(reinterpret_cast<float(&)[4]>(d[f][8 * n + 4]), a[f], b[2], b[3]);
      }
    }
  }
}

}  // namespace quire::cuda::sm80
