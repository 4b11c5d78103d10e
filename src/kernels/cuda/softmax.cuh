// Online softmax over a block of scores held in accumulator fragments (fragment.cuh): every thread
// owns two rows. Everything is in the base-2 domain: p = 2^(s*c - m*c) with c = scale * log2(e),
// one FFMA and one MUFU an element.
#pragma once

#include <math_constants.h>

#include "kernels/cuda/ptx.cuh"

namespace quire::cuda {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

struct RowState {
  float max[2];  // running row maximum of the raw scores; -inf before the first visible column
  float sum[2];  // this thread's part of the row sum: the quad's four parts are added once, at the
                 // end
};

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// s := p, updates the state, and returns in alpha[r] the factor by which row r's earlier sum and
// output must shrink. kCount = registers of the block (N/2). A row with no visible column so far
// has max -inf; 0 is subtracted instead. Returns whether any row of the warp shrinks.
//
// kLazy: a row whose maximum grows by less than 2^8 keeps the old one: p may then exceed 1, up to
// 2^8, which costs no precision in f32 sums and 16-bit floats, and earlier outputs are hardly ever
// rescaled. Each row decides for itself, so that its bits do not depend on its neighbours.
//
// In two halves, so that a kernel can put a wait between them: softmax_max finds what to subtract,
// softmax_exp does the rest.
template <bool kLazy, int kCount>
__device__ __forceinline__ bool softmax_max(const float (&s)[kCount],
                                            RowState& state,
                                            float scale_log2,
                                            float (&alpha)[2],
                                            float (&shift)[2]) {
  bool shrinks = !kLazy;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float m0 = s[2 * r], m1 = s[2 * r + 1];
#pragma unroll
    for (int j = 4; j < kCount; j += 4) {
      m0 = fmaxf(m0, s[j + 2 * r]);
      m1 = fmaxf(m1, s[j + 2 * r + 1]);
    }
    const float before = state.max[r];
    float now = fmaxf(before, quad_max(fmaxf(m0, m1)));
    if constexpr (kLazy) {
      const bool grows = !((now - before) * scale_log2 <= 8.0f);
      shrinks |= grows;
      now = grows ? now : before;
    }
    state.max[r] = now;
    const float safe = now == -CUDART_INF_F ? 0.0f : now;
    shift[r] = safe * scale_log2;
    alpha[r] = exp2_approx(before * scale_log2 - shift[r]);
  }
  return kLazy ? __any_sync(0xffffffffu, shrinks) : true;
}

template <int kCount>
__device__ __forceinline__ void softmax_exp(float (&s)[kCount],
                                            RowState& state,
                                            float scale_log2,
                                            const float (&alpha)[2],
                                            const float (&shift)[2]) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    s[j] = exp2_approx(__fmaf_rn(s[j], scale_log2, -shift[(j / 2) % 2]));
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum0 = s[2 * r], sum1 = s[2 * r + 1];
#pragma unroll
    for (int j = 4; j < kCount; j += 4) {
      sum0 += s[j + 2 * r];
      sum1 += s[j + 2 * r + 1];
    }
    state.sum[r] = state.sum[r] * alpha[r] + (sum0 + sum1);
  }
}

template <bool kLazy, int kCount>
__device__ __forceinline__ bool softmax_block(float (&s)[kCount],
                                              RowState& state,
                                              float scale_log2,
                                              float (&alpha)[2]) {
  float shift[2];
  const bool shrinks = softmax_max<kLazy>(s, state, scale_log2, alpha, shift);
  softmax_exp(s, state, scale_log2, alpha, shift);
  return shrinks;
}

// Columns outside [low[r], high[r]) of row r become `value`. Bounds are relative to the block's
// first column minus this thread's own column offset, so that the left sides of the comparisons are
// compile-time constants.
template <int kCount>
__device__ __forceinline__ void mask_block(float (&s)[kCount],
                                           const int (&low)[2],
                                           const int (&high)[2],
                                           float value) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const int column = (j / 4) * 8 + j % 2;
    const int r = (j / 2) % 2;
    if (column < low[r] || column >= high[r]) s[j] = value;
  }
}

// What row r's output is multiplied by, and its natural-log log-sum-exp. An attention sink is one
// more column whose value is zero: it only enlarges the sum. A row without any column gives output
// 0 and log-sum-exp -inf.
struct RowResult {
  float factor;
  float logsumexp;
};
__device__ __forceinline__ RowResult
finish_row(float max, float sum, float scale_log2, const float* sinks, int head) {
  float top = max == -CUDART_INF_F ? -CUDART_INF_F : max * scale_log2;  // base 2
  float factor = 1.0f;
  if (sinks != nullptr) {
    const float sink = sinks[head] * kLog2e;
    const float higher = fmaxf(top, sink);
    factor = top == -CUDART_INF_F ? 0.0f : exp2_approx(top - higher);
    sum = sum * factor + (higher == -CUDART_INF_F ? 0.0f : exp2_approx(sink - higher));
    top = higher;
  }
  if (!(sum > 0.0f) && !isnan(sum)) return {0.0f, -CUDART_INF_F};
  return {factor / sum, (top + log2f(sum)) * kLn2};
}

template <typename T, int kCount>
__device__ __forceinline__ void pack_probabilities(const float (&s)[kCount],
                                                   uint32_t (&p)[kCount / 8][4]) {
#pragma unroll
  for (int j = 0; j < kCount / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) p[j][i] = pack2<T>(s[8 * j + 2 * i], s[8 * j + 2 * i + 1]);
  }
}

}  // namespace quire::cuda
