// The sm_80 class backward kernels and their launcher.
#pragma once

#include "kernels/cuda/quire_attention.h"

namespace quire::cuda::sm80 {

// What the kernels get besides the forward arguments. Rows of delta and dq_sum are numbered like
// those of lse.
struct BackwardParams {
  const void* d_o;
  void *dq, *dk, *dv;
  float* delta;   // row sums of dO * O
  float* dq_sum;  // [heads, dq_blocks, tile_queries x tile head dim], f32, zero at the start;
                  // unused when deterministic. Every sequence begins at a new block.
  int64_t dq_blocks;
};

struct BackwardKernel {
  int32_t dtype, head_dim;
  int32_t tile_queries, tile_keys;
  int32_t threads, smem_bytes;
  int32_t delta_rows;       // queries a CTA of the delta kernel
  const void* dkdv_atomic;  // dK and dV; dQ by atomic additions
  const void* dkdv;         // dK and dV alone
  int32_t dq_queries, dq_threads, dq_smem_bytes;
  const void* dq;       // dQ, with S computed again
  const void* delta;    // row sums
  const void* convert;  // dq_sum to dQ
};

extern const BackwardKernel* const kBackwardKernels[];
extern const int kNumBackwardKernels;

const BackwardKernel* find_backward(const QuireAttentionArgs& args, const char** reason);
int64_t backward_workspace_bytes(const QuireAttentionArgs& args, const QuireAttentionGrad& grad);
int run_backward(const QuireAttentionArgs& args,
                 const QuireAttentionGrad& grad,
                 const BackwardKernel& kernel,
                 QuireAttentionError* error);

}  // namespace quire::cuda::sm80
