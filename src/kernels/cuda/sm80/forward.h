// The sm_80 class forward kernels and their launcher.
#pragma once

#include "kernels/cuda/quire_attention.h"

namespace quire::cuda::sm80 {

struct ForwardKernel {
  const char* tiles;  // "": the tiles of this head dim; "128x64" and so on: one point of the sweep
  int32_t dtype, head_dim;
  bool softcap;
  int32_t tile_rows, tile_keys, threads, smem_bytes;
  const void* entry;
};

extern const ForwardKernel* const kForwardKernels[];
extern const int kNumForwardKernels;

const ForwardKernel* find_forward(const QuireAttentionArgs& args,
                                  const char* tiles,
                                  const char** reason);
int run_forward(const QuireAttentionArgs& args,
                const ForwardKernel& kernel,
                QuireAttentionError* error);

}  // namespace quire::cuda::sm80
