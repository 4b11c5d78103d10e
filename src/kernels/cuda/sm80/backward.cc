// Launches the sm_80 class backward kernels.
#include "kernels/cuda/sm80/backward.h"

#include "kernels/cuda/host.h"

namespace quire::cuda::sm80 {
namespace {

// Rows of lse: (batch, head, query) in either layout.
int64_t num_rows(const QuireAttentionArgs& args) {
  const int64_t tokens = args.cu_seqlens_q != nullptr
                             ? args.total_q
                             : static_cast<int64_t>(args.batch) * args.max_seqlen_q;
  return tokens * args.num_heads;
}
// Blocks of queries of one head; packed sequences begin at block start / tile_queries + index.
int64_t query_blocks(const QuireAttentionArgs& args, const BackwardKernel& kernel) {
  return args.cu_seqlens_q != nullptr
             ? args.total_q / kernel.tile_queries + args.batch
             : static_cast<int64_t>(args.batch) * divide_up(args.max_seqlen_q, kernel.tile_queries);
}
int64_t sum_bytes(const QuireAttentionArgs& args, const BackwardKernel& kernel) {
  return query_blocks(args, kernel) * args.num_heads * kernel.tile_queries * kernel.head_dim * 4;
}
int64_t delta_bytes(const QuireAttentionArgs& args) { return align_up(num_rows(args) * 4, 256); }

}  // namespace

const BackwardKernel* find_backward(const QuireAttentionArgs& args, const char** reason) {
  *reason = nullptr;
  if (args.arch < 80) *reason = "backward needs compute capability 8.0";
  if (args.block_table != nullptr || args.seqused_k != nullptr) {
    *reason = "backward has no paged and no partly used keys";
  }
  if (args.softcap > 0 || args.sinks != nullptr) *reason = "backward has no softcap and no sinks";
  if (args.head_dim % 8 != 0) *reason = "head_dim not a multiple of 8";
  if (args.lse == nullptr) *reason = "backward needs the log-sum-exp of the forward pass";
  if (*reason != nullptr) return nullptr;
  const BackwardKernel* best = nullptr;
  for (int i = 0; i < kNumBackwardKernels; ++i) {
    const BackwardKernel* kernel = kBackwardKernels[i];
    if (kernel->dtype != args.dtype || kernel->head_dim < args.head_dim) continue;
    if (best == nullptr || kernel->head_dim < best->head_dim) best = kernel;
  }
  if (best == nullptr) *reason = "backward has no instantiation for this type and head_dim";
  return best;
}

int64_t backward_workspace_bytes(const QuireAttentionArgs& args, const QuireAttentionGrad& grad) {
  const char* reason;
  const BackwardKernel* kernel = find_backward(args, &reason);
  if (kernel == nullptr) return 0;
  const int64_t sums = grad.deterministic ? 0 : sum_bytes(args, *kernel);
  return delta_bytes(args) + sums;
}

int run_backward(const QuireAttentionArgs& args,
                 const QuireAttentionGrad& grad,
                 const BackwardKernel& kernel,
                 QuireAttentionError* error) {
  if (args.batch == 0 || args.max_seqlen_q == 0) return QUIRE_OK;
  const int64_t needed = backward_workspace_bytes(args, grad);
  if (args.workspace_bytes < needed) {
    return fail(error,
                QUIRE_INVALID,
                "backward needs %lld bytes of workspace, got %lld",
                static_cast<long long>(needed),
                static_cast<long long>(args.workspace_bytes));
  }
  char* workspace = static_cast<char*>(args.workspace);
  BackwardParams params = {grad.d_o,
                           grad.dq,
                           grad.dk,
                           grad.dv,
                           reinterpret_cast<float*>(workspace),
                           reinterpret_cast<float*>(workspace + delta_bytes(args)),
                           query_blocks(args, kernel)};
  QuireAttentionArgs copy = args;
  void* arguments[] = {&copy, &params};
  const dim3 delta_rows(
      divide_up(args.max_seqlen_q, kernel.delta_rows), args.num_heads, args.batch);
  const dim3 key_blocks(
      divide_up(args.max_seqlen_k, kernel.tile_keys), args.num_kv_heads, args.batch);
  int code = launch(kernel.delta, delta_rows, 256, 0, arguments, args, error);
  if (code == QUIRE_OK && !grad.deterministic) {
    code = check_cuda(
        cudaMemsetAsync(
            params.dq_sum, 0, sum_bytes(args, kernel), static_cast<cudaStream_t>(args.stream)),
        "clearing the sums of dQ",
        error);
  }
  if (code == QUIRE_OK && key_blocks.x > 0) {
    code = launch(grad.deterministic ? kernel.dkdv : kernel.dkdv_atomic,
                  key_blocks,
                  kernel.threads,
                  kernel.smem_bytes,
                  arguments,
                  args,
                  error);
  }
  if (code != QUIRE_OK) return code;
  dim3 query_tiles(divide_up(args.max_seqlen_q, kernel.tile_queries), args.num_heads, args.batch);
  if (!grad.deterministic) {
    return launch(kernel.convert, query_tiles, 256, 0, arguments, args, error);
  }
  query_tiles.x = divide_up(args.max_seqlen_q, kernel.dq_queries);
  return launch(
      kernel.dq, query_tiles, kernel.dq_threads, kernel.dq_smem_bytes, arguments, args, error);
}

}  // namespace quire::cuda::sm80
