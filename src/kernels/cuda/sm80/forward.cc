// Launches the sm_80 class forward kernel.
#include "kernels/cuda/sm80/forward.h"

#include <cstring>

#include "kernels/cuda/host.h"

namespace quire::cuda::sm80 {
namespace {

// Where a head dimension has two tiles: 112 keys are 5 % faster than 128 once a query sees 4096
// keys in the mean, and as much slower for short sequences.
bool prefers_fewer_keys(const QuireAttentionArgs& args) {
  return args.max_seqlen_k >= (args.window_right >= 0 ? 8192 : 4096);
}
// The smallest head dimension, then the preferred tile.
int rank(const QuireAttentionArgs& args, const ForwardKernel& kernel) {
  const int keys = kernel.tile_keys;
  return kernel.head_dim * 256 + (prefers_fewer_keys(args) ? keys : 256 - keys);
}

}  // namespace

const ForwardKernel* find_forward(const QuireAttentionArgs& args,
                                  const char* tiles,
                                  const char** reason) {
  *reason = nullptr;
  if (args.arch < 80) *reason = "needs compute capability 8.0";
  if (args.block_table != nullptr) *reason = "no paged keys";
  if (args.head_dim % 8 != 0 || args.head_dim > 256)
    *reason = "head_dim not a multiple of 8 up to 256";
  if (args.num_heads > 65535 || args.batch > 65535) *reason = "more than 65535 heads or sequences";
  if (*reason != nullptr) return nullptr;
  const ForwardKernel* best = nullptr;
  for (int i = 0; i < kNumForwardKernels; ++i) {
    const ForwardKernel* kernel = kForwardKernels[i];
    if (kernel->dtype != args.dtype || kernel->head_dim < args.head_dim ||
        kernel->softcap != (args.softcap > 0) || std::strcmp(kernel->tiles, tiles) != 0) {
      continue;
    }
    if (best == nullptr || rank(args, *kernel) < rank(args, *best)) best = kernel;
  }
  if (best == nullptr) *reason = "no instantiation for this type, head_dim and softcap";
  return best;
}

int run_forward(const QuireAttentionArgs& args,
                const ForwardKernel& kernel,
                QuireAttentionError* error) {
  if (args.batch == 0 || args.max_seqlen_q == 0) return QUIRE_OK;
  QuireAttentionArgs copy = args;
  void* arguments[] = {&copy};
  const dim3 grid(divide_up(args.max_seqlen_q, kernel.tile_rows), args.num_heads, args.batch);
  return launch(kernel.entry, grid, kernel.threads, kernel.smem_bytes, arguments, args, error);
}

}  // namespace quire::cuda::sm80
