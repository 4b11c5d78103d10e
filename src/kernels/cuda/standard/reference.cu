// Attention in double precision, one CTA a query row: the yardstick of every other kernel. Slow and
// obvious:
//   s_j = scale q.k_j (softcap, masks), m = max s, p_j = exp(s_j - m), o = sum p_j v_j / sum p_j,
//   lse = m + ln sum p_j
// Keys are taken kKeys at a time with a running maximum, so that the length is not limited.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math_constants.h>

#include "kernels/cuda/host.h"
#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/standard/standard.h"

namespace quire::cuda {
namespace {

constexpr int kKeys = 256;  // also the threads of a CTA, and the largest head_dim

__device__ double to_double(__half x) { return __half2float(x); }
__device__ double to_double(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void from_double(double x, __half* y) { *y = __double2half(x); }
__device__ void from_double(double x, __nv_bfloat16* y) { *y = __double2bfloat16(x); }

template <typename T>
__device__ double score(const QuireAttentionArgs& a, const double* q, const T* k) {
  double dot = 0;
  for (int c = 0; c < a.head_dim; ++c) dot += q[c] * to_double(k[c]);
  dot *= a.scale;
  return a.softcap > 0 ? a.softcap * tanh(dot / a.softcap) : dot;
}

template <typename T>
__global__ void __launch_bounds__(kKeys)
    reference_kernel(const __grid_constant__ QuireAttentionArgs a) {
  __shared__ double q[256], p[kKeys];
  const Sequence s = get_sequence(a, blockIdx.z);
  const int i = blockIdx.x, head = blockIdx.y, t = threadIdx.x;
  if (i >= s.len_q) return;
  const int kv_head = head / (a.num_heads / a.num_kv_heads);
  const int64_t q_at = s.q_start + i * a.q_stride_token + head * a.q_stride_head;
  if (t < a.head_dim) q[t] = to_double(static_cast<const T*>(a.q)[q_at + t]);
  int low, high;
  visible_keys(a, s.len_q, s.len_k, i, &low, &high);
  double max = a.sinks != nullptr ? a.sinks[head] : -CUDART_INF;
  double sum = a.sinks != nullptr ? 1 : 0, o = 0;
  for (int first = low; first < high; first += kKeys) {
    const int count = min(kKeys, high - first);
    __syncthreads();
    p[t] = -CUDART_INF;
    if (t < count) {
      const int64_t at = s.k_start + kv_head * a.k_stride_head +
                         key_offset(a, s.batch, first + t, a.k_stride_batch, a.k_stride_token);
      p[t] = score(a, q, static_cast<const T*>(a.k) + at);
    }
    __syncthreads();
    double now = max;
    for (int j = 0; j < count; ++j) now = fmax(now, p[j]);
    const double alpha = max == -CUDART_INF ? 0 : exp(max - now);
    max = now;
    __syncthreads();
    p[t] = p[t] == -CUDART_INF ? 0 : exp(p[t] - max);
    __syncthreads();
    sum *= alpha;
    o *= alpha;
    for (int j = 0; j < count; ++j) {
      sum += p[j];
      if (t >= a.head_dim) continue;
      const int64_t at = s.v_start + kv_head * a.v_stride_head +
                         key_offset(a, s.batch, first + j, a.v_stride_batch, a.v_stride_token);
      o += p[j] * to_double(static_cast<const T*>(a.v)[at + t]);
    }
  }
  const int64_t o_at = s.o_start + i * a.o_stride_token + head * a.o_stride_head;
  if (t < a.head_dim) {
    from_double(sum == 0 ? 0 : o / sum, static_cast<T*>(a.o) + o_at + t);
  }
  if (t == 0 && a.lse != nullptr) {
    a.lse[s.lse_start + head * s.lse_stride_head + i] = sum == 0 ? -CUDART_INF : max + log(sum);
  }
}

}  // namespace

int run_reference(const QuireAttentionArgs& args, QuireAttentionError* error) {
  if (args.batch == 0 || args.max_seqlen_q == 0) return QUIRE_OK;
  const void* kernel = args.dtype == QUIRE_BFLOAT16
                           ? reinterpret_cast<const void*>(&reference_kernel<__nv_bfloat16>)
                           : reinterpret_cast<const void*>(&reference_kernel<__half>);
  QuireAttentionArgs copy = args;
  void* arguments[] = {&copy};
  const dim3 grid(args.max_seqlen_q, args.num_heads, args.batch);
  return launch(kernel, grid, kKeys, 0, arguments, args, error);
}

}  // namespace quire::cuda
