// The sm_90a forward kernels and their launcher.
#pragma once

#include "kernels/cuda/quire_attention.h"
#include "kernels/cuda/sm90/params.h"

namespace quire::cuda::sm90 {

// One instantiation (forward.cu.in), with what the launcher must know of its tiles.
struct ForwardKernel {
  const char* stage;  // "full", "split", or the ablation this one is for
  int32_t dtype, head_dim;
  bool softcap, grouped;  // grouped: paged keys, see can_group in forward.cc
  KeyPlan plan;
  int32_t tile_rows, tile_keys, threads, smem_bytes, ctas_per_sm;
  const void* entry;
};

extern const ForwardKernel* const kForwardKernels[];
extern const int kNumForwardKernels;

inline bool splits(const ForwardKernel& kernel) {
  return kernel.plan == KeyPlan::kSplit || kernel.plan == KeyPlan::kSplitInvariant;
}

// The instantiation for these arguments, or null and the reason.
const ForwardKernel* find_forward(const QuireAttentionArgs& args,
                                  const char* stage,
                                  const char** reason);
int64_t forward_workspace_bytes(const QuireAttentionArgs& args, const ForwardKernel& kernel);
// Query rows (tokens x packed heads) of the longest sequence: what decides between whole and split
// keys.
int64_t packed_rows(const QuireAttentionArgs& args);
int run_forward(const QuireAttentionArgs& args,
                const ForwardKernel& kernel,
                QuireAttentionError* error);

}  // namespace quire::cuda::sm90
