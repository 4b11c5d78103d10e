// Standard attention: S and P are whole matrices in global memory, written and read back
// ("algorithm 0" of arXiv 2205.14135). Three kernels: S = scale Q K^T, P = softmax(S) by rows, O =
// P V; products in 64x64 tiles of mma.sync. Workspace: S and P, 16 bits each per (batch, head,
// query, key), rows padded to a multiple of 8.
#include <math_constants.h>

#include "kernels/cuda/host.h"
#include "kernels/cuda/sequence.cuh"
#include "kernels/cuda/sm80/tile.cuh"
#include "kernels/cuda/standard/standard.h"

namespace quire::cuda {
namespace {

constexpr int kTile = 64;
constexpr int kThreads = 128;
constexpr int kSoftmaxThreads = 256;

__device__ float to_float(__half x) { return __half2float(x); }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void from_float(float x, __half* y) { *y = __float2half(x); }
__device__ void from_float(float x, __nv_bfloat16* y) { *y = __float2bfloat16(x); }

// The matrix of one (batch, head), row-major.
struct Matrix {
  void* base;
  int64_t stride_batch, stride_head, stride;
};

struct ProductArgs {
  Matrix a, b, c;  // b has num_heads / group heads
  int num_heads, group;
  int m, n, k;  // multiples of 8, except m
  float alpha;
};

// C[m,n] = alpha A[m,k] op(B); kTransB: B is stored [n][k].
template <typename T, bool kTransB>
__global__ void __launch_bounds__(kThreads) product_kernel(const __grid_constant__ ProductArgs p) {
  constexpr int kBytes = sm80::kTileBytes<kTile, kTile>;
  __shared__ __align__(1024) char tiles[2 * kBytes];
  const uint32_t tile_a = smem_address(tiles), tile_b = tile_a + kBytes;
  const int m0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile;
  const int batch = blockIdx.z / p.num_heads, head = blockIdx.z % p.num_heads;
  const T* a = static_cast<const T*>(p.a.base) + batch * p.a.stride_batch + head * p.a.stride_head;
  const T* b =
      static_cast<const T*>(p.b.base) + batch * p.b.stride_batch + head / p.group * p.b.stride_head;
  T* out = static_cast<T*>(p.c.base) + batch * p.c.stride_batch + head * p.c.stride_head;
  const int warp_row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  float c[kTile / 2] = {};
  for (int k0 = 0; k0 < p.k; k0 += kTile) {
    __syncthreads();
    sm80::load_tile<kTile, kTile, kThreads>(
        tile_a, a + m0 * p.a.stride + k0, p.a.stride, p.m - m0, p.k - k0);
    if (kTransB) {
      sm80::load_tile<kTile, kTile, kThreads>(
          tile_b, b + n0 * p.b.stride + k0, p.b.stride, p.n - n0, p.k - k0);
    } else {
      sm80::load_tile<kTile, kTile, kThreads>(
          tile_b, b + k0 * p.b.stride + n0, p.b.stride, p.k - k0, p.n - n0);
    }
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int step = 0; step < kTile / 16; ++step) {
      uint32_t rows[4];
      sm80::load_a<kTile>(rows, tile_a, warp_row, step);
#pragma unroll
      for (int n = 0; n < kTile / 16; ++n) {
        uint32_t columns[4];
        if (kTransB) {
          sm80::load_b<kTile>(columns, tile_b, 16 * n, step);
        } else {
          sm80::load_b_trans<kTile>(columns, tile_b, 16 * n, step);
        }
        mma_16816<T>(reinterpret_cast<float(&)[4]>(c[8 * n]), rows, columns[0], columns[1]);
        mma_16816<T>(reinterpret_cast<float(&)[4]>(c[8 * n + 4]), rows, columns[2], columns[3]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTile / 2; ++i) {
    const int row = m0 + warp_row + fragment_row(lane, i % 4);
    const int column = n0 + i / 4 * 8 + fragment_column(lane, i % 4);
    if (row < p.m && column < p.n) from_float(c[i] * p.alpha, out + row * p.c.stride + column);
  }
}

__device__ float block_reduce(float x, bool maximum) {
  __shared__ float parts[kSoftmaxThreads / 32];
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, x, step);
    x = maximum ? fmaxf(x, other) : x + other;
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  x = parts[0];
  for (int i = 1; i < kSoftmaxThreads / 32; ++i) x = maximum ? fmaxf(x, parts[i]) : x + parts[i];
  return x;
}

// One row of P a CTA. Keys that the query does not see, and the padding, become zero.
template <typename T>
__global__ void __launch_bounds__(kSoftmaxThreads) softmax_kernel(
    const __grid_constant__ QuireAttentionArgs a, const T* scores, T* p, int stride) {
  const int i = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  const int64_t row = (static_cast<int64_t>(batch) * a.num_heads + head) * a.max_seqlen_q + i;
  scores += row * stride;
  p += row * stride;
  int low, high;
  visible_keys(a, a.max_seqlen_q, a.max_seqlen_k, i, &low, &high);
  float max = -CUDART_INF_F, sum = 0;
  for (int j = low + threadIdx.x; j < high; j += kSoftmaxThreads) {
    max = fmaxf(max, to_float(scores[j]));
  }
  max = block_reduce(max, true);
  for (int j = low + threadIdx.x; j < high; j += kSoftmaxThreads) {
    sum += __expf(to_float(scores[j]) - max);
  }
  sum = block_reduce(sum, false);
  for (int j = threadIdx.x; j < stride; j += kSoftmaxThreads) {
    const bool visible = j >= low && j < high;
    from_float(visible ? __expf(to_float(scores[j]) - max) / sum : 0.0f, p + j);
  }
  if (threadIdx.x == 0 && a.lse != nullptr) {
    a.lse[row] = high > low ? max + __logf(sum) : -CUDART_INF_F;
  }
}

int64_t padded_keys(const QuireAttentionArgs& args) { return align_up(args.max_seqlen_k, 8); }

int64_t matrix_bytes(const QuireAttentionArgs& args) {
  return align_up(2LL * args.batch * args.num_heads * args.max_seqlen_q * padded_keys(args), 256);
}

template <typename T>
int run_typed(const QuireAttentionArgs& args, QuireAttentionError* error) {
  const int group = args.num_heads / args.num_kv_heads;
  const int keys = static_cast<int>(padded_keys(args));
  const int64_t head_stride = static_cast<int64_t>(args.max_seqlen_q) * keys;
  const Matrix q = {
      const_cast<void*>(args.q), args.q_stride_batch, args.q_stride_head, args.q_stride_token};
  const Matrix k = {
      const_cast<void*>(args.k), args.k_stride_batch, args.k_stride_head, args.k_stride_token};
  const Matrix v = {
      const_cast<void*>(args.v), args.v_stride_batch, args.v_stride_head, args.v_stride_token};
  const Matrix o = {args.o, args.o_stride_batch, args.o_stride_head, args.o_stride_token};
  const Matrix s = {args.workspace, head_stride * args.num_heads, head_stride, keys};
  Matrix p = s;
  p.base = static_cast<char*>(args.workspace) + matrix_bytes(args);
  const unsigned m_tiles = divide_up(args.max_seqlen_q, kTile);
  const unsigned matrices = args.batch * args.num_heads;

  ProductArgs scores = {q,
                        k,
                        s,
                        args.num_heads,
                        group,
                        args.max_seqlen_q,
                        args.max_seqlen_k,
                        args.head_dim,
                        args.scale};
  void* scores_arguments[] = {&scores};
  int code = launch(reinterpret_cast<const void*>(&product_kernel<T, true>),
                    dim3(divide_up(keys, kTile), m_tiles, matrices),
                    kThreads,
                    0,
                    scores_arguments,
                    args,
                    error);
  if (code != QUIRE_OK) return code;

  QuireAttentionArgs copy = args;
  int stride = keys;
  void* softmax_arguments[] = {&copy, const_cast<void**>(&s.base), &p.base, &stride};
  code = launch(reinterpret_cast<const void*>(&softmax_kernel<T>),
                dim3(args.max_seqlen_q, args.num_heads, args.batch),
                kSoftmaxThreads,
                0,
                softmax_arguments,
                args,
                error);
  if (code != QUIRE_OK) return code;

  // Only rows of V that exist are read: k counts real keys, in whole tiles of the padded row of P.
  ProductArgs output = {
      p, v, o, args.num_heads, group, args.max_seqlen_q, args.head_dim, args.max_seqlen_k, 1.0f};
  void* output_arguments[] = {&output};
  return launch(reinterpret_cast<const void*>(&product_kernel<T, false>),
                dim3(divide_up(args.head_dim, kTile), m_tiles, matrices),
                kThreads,
                0,
                output_arguments,
                args,
                error);
}

}  // namespace

const char* standard_unsupported(const QuireAttentionArgs& args) {
  if (args.cu_seqlens_q != nullptr || args.cu_seqlens_k != nullptr || args.seqused_k != nullptr ||
      args.block_table != nullptr) {
    return "dense only";
  }
  if (args.softcap > 0 || args.sinks != nullptr) return "no softcap, no sinks";
  if (args.head_dim % 8 != 0) return "head_dim not a multiple of 8";
  if (args.batch * args.num_heads > 65535 || args.max_seqlen_q > 65535 * kTile) {
    return "more than 65535 matrices";
  }
  return nullptr;
}

int64_t standard_workspace_bytes(const QuireAttentionArgs& args) { return 2 * matrix_bytes(args); }

int run_standard(const QuireAttentionArgs& args, QuireAttentionError* error) {
  if (args.batch == 0 || args.max_seqlen_q == 0) return QUIRE_OK;
  return args.dtype == QUIRE_BFLOAT16 ? run_typed<__nv_bfloat16>(args, error)
                                      : run_typed<__half>(args, error);
}

}  // namespace quire::cuda
