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
  Matrix a, b, c;
  int num_heads, group;  // heads of C; b has one head for `group` of a's
  int m, n, k;           // multiples of 8, except m
  float alpha;
  int repeat;  // C of a head is the sum over this many heads of a and b (gradients of grouped
               // heads)
};

// C[m,n] = alpha op(A) op(B). kTransA: A is stored [k][m]; kTransB: B is stored [n][k].
template <typename T, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kThreads) product_kernel(const __grid_constant__ ProductArgs p) {
  constexpr int kBytes = sm80::kTileBytes<kTile, kTile>;
  __shared__ __align__(1024) char tiles[2 * kBytes];
  const uint32_t tile_a = smem_address(tiles), tile_b = tile_a + kBytes;
  const int m0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile;
  const int batch = blockIdx.z / p.num_heads, head = blockIdx.z % p.num_heads;
  T* out = static_cast<T*>(p.c.base) + batch * p.c.stride_batch + head * p.c.stride_head;
  const int warp_row = threadIdx.x / 32 * 16, lane = threadIdx.x % 32;
  float c[kTile / 2] = {};
  const T* a = static_cast<const T*>(p.a.base) + batch * p.a.stride_batch;
  const T* b = static_cast<const T*>(p.b.base) + batch * p.b.stride_batch;
  a = sm80::thread_part<kTile>(a + head * p.repeat * p.a.stride_head, p.a.stride);
  b = sm80::thread_part<kTile>(b + head * p.repeat / p.group * p.b.stride_head, p.b.stride);
  int left = p.repeat;
  for (int k0 = 0; left > 0; k0 += kTile) {
    if (k0 >= p.k) {
      if (--left == 0) break;
      k0 = 0;
      a += p.a.stride_head;
      b += p.b.stride_head;
    }
    __syncthreads();
    if (kTransA) {
      sm80::load_tile<kTile, kTile, kThreads>(
          tile_a, a + k0 * p.a.stride + m0, p.a.stride, p.k - k0, p.m - m0);
    } else {
      sm80::load_tile<kTile, kTile, kThreads>(
          tile_a, a + m0 * p.a.stride + k0, p.a.stride, p.m - m0, p.k - k0);
    }
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
      if (kTransA) {
        sm80::load_a_trans<kTile>(rows, tile_a, warp_row, step);
      } else {
        sm80::load_a<kTile>(rows, tile_a, warp_row, step);
      }
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

// dS = P * (dP - sum(P * dP)) over one row, in place of dP; the padding becomes zero.
template <typename T>
__global__ void __launch_bounds__(kSoftmaxThreads)
    score_gradient_kernel(const T* p, T* dp, int keys, int stride) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * stride;
  p += at;
  dp += at;
  float sum = 0;
  for (int j = threadIdx.x; j < keys; j += kSoftmaxThreads) sum += to_float(p[j]) * to_float(dp[j]);
  sum = block_reduce(sum, false);
  for (int j = threadIdx.x; j < stride; j += kSoftmaxThreads) {
    from_float(j < keys ? to_float(p[j]) * (to_float(dp[j]) - sum) : 0.0f, dp + j);
  }
}

int64_t padded_keys(const QuireAttentionArgs& args) { return align_up(args.max_seqlen_k, 8); }

int64_t matrix_bytes(const QuireAttentionArgs& args) {
  return align_up(2LL * args.batch * args.num_heads * args.max_seqlen_q * padded_keys(args), 256);
}

// The tensors of a call as matrices, and the launches over them.
template <typename T>
struct Standard {
  const QuireAttentionArgs& args;
  QuireAttentionError* error;
  const int group = args.num_heads / args.num_kv_heads;
  const int keys = static_cast<int>(padded_keys(args));

  Matrix q_like(const void* x) const {
    return {const_cast<void*>(x), args.q_stride_batch, args.q_stride_head, args.q_stride_token};
  }
  Matrix o_like(const void* x) const {
    return {const_cast<void*>(x), args.o_stride_batch, args.o_stride_head, args.o_stride_token};
  }
  Matrix k_like(const void* x) const {
    return {const_cast<void*>(x), args.k_stride_batch, args.k_stride_head, args.k_stride_token};
  }
  Matrix v_like(const void* x) const {
    return {const_cast<void*>(x), args.v_stride_batch, args.v_stride_head, args.v_stride_token};
  }
  // The first or second [batch, head, query, key] matrix of the workspace.
  Matrix whole(int index) const {
    const int64_t head = static_cast<int64_t>(args.max_seqlen_q) * keys;
    return {static_cast<char*>(args.workspace) + index * matrix_bytes(args),
            head * args.num_heads,
            head,
            keys};
  }

  template <bool kTransA, bool kTransB>
  int product(ProductArgs p) const {
    void* arguments[] = {&p};
    return launch(reinterpret_cast<const void*>(&product_kernel<T, kTransA, kTransB>),
                  dim3(divide_up(p.n, kTile), divide_up(p.m, kTile), args.batch * p.num_heads),
                  kThreads,
                  0,
                  arguments,
                  args,
                  error);
  }
  // [query, key] = alpha x y^T for x with a query's head, y with a key's.
  int query_key(Matrix x, Matrix y, Matrix out, float alpha) const {
    return product<false, true>({x,
                                 y,
                                 out,
                                 args.num_heads,
                                 group,
                                 args.max_seqlen_q,
                                 args.max_seqlen_k,
                                 args.head_dim,
                                 alpha,
                                 1});
  }
  // S into the first matrix, P into the second.
  int probabilities(float* lse) const {
    int code = query_key(q_like(args.q), k_like(args.k), whole(0), args.scale);
    if (code != QUIRE_OK) return code;
    QuireAttentionArgs copy = args;
    copy.lse = lse;
    void *s = whole(0).base, *p = whole(1).base;
    int stride = keys;
    void* arguments[] = {&copy, &s, &p, &stride};
    return launch(reinterpret_cast<const void*>(&softmax_kernel<T>),
                  dim3(args.max_seqlen_q, args.num_heads, args.batch),
                  kSoftmaxThreads,
                  0,
                  arguments,
                  args,
                  error);
  }
  // [query, d] = alpha x y, x [query, key]. Only rows of y that exist are read: k counts real keys.
  int over_keys(Matrix x, Matrix y, Matrix out, float alpha) const {
    return product<false, false>({x,
                                  y,
                                  out,
                                  args.num_heads,
                                  group,
                                  args.max_seqlen_q,
                                  args.head_dim,
                                  args.max_seqlen_k,
                                  alpha,
                                  1});
  }
  // [key, d] = alpha sum over the group's heads of x^T y, x [query, key], y with a query's head.
  int over_queries(Matrix x, Matrix y, Matrix out, float alpha) const {
    return product<true, false>({x,
                                 y,
                                 out,
                                 args.num_kv_heads,
                                 1,
                                 args.max_seqlen_k,
                                 args.head_dim,
                                 args.max_seqlen_q,
                                 alpha,
                                 group});
  }

  int forward() const {
    const int code = probabilities(args.lse);
    return code != QUIRE_OK ? code : over_keys(whole(1), v_like(args.v), o_like(args.o), 1.0f);
  }

  int backward(const QuireAttentionGrad& g) const {
    int code = probabilities(nullptr);
    if (code == QUIRE_OK) code = over_queries(whole(1), o_like(g.d_o), v_like(g.dv), 1.0f);
    if (code == QUIRE_OK) code = query_key(o_like(g.d_o), v_like(args.v), whole(0), 1.0f);
    if (code != QUIRE_OK) return code;
    void *p = whole(1).base, *dp = whole(0).base;
    int real = args.max_seqlen_k, stride = keys;
    void* arguments[] = {&p, &dp, &real, &stride};
    code = launch(reinterpret_cast<const void*>(&score_gradient_kernel<T>),
                  dim3(args.batch * args.num_heads * args.max_seqlen_q),
                  kSoftmaxThreads,
                  0,
                  arguments,
                  args,
                  error);
    if (code == QUIRE_OK) code = over_keys(whole(0), k_like(args.k), q_like(g.dq), args.scale);
    if (code == QUIRE_OK) code = over_queries(whole(0), q_like(args.q), k_like(g.dk), args.scale);
    return code;
  }
};

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
  return args.dtype == QUIRE_BFLOAT16 ? Standard<__nv_bfloat16>{args, error}.forward()
                                      : Standard<__half>{args, error}.forward();
}

int64_t standard_backward_workspace_bytes(const QuireAttentionArgs& args) {
  return 2 * matrix_bytes(args);
}

int run_standard_backward(const QuireAttentionArgs& args,
                          const QuireAttentionGrad& grad,
                          QuireAttentionError* error) {
  if (args.batch == 0 || args.max_seqlen_q == 0 || args.max_seqlen_k == 0) return QUIRE_OK;
  if (args.workspace_bytes < standard_backward_workspace_bytes(args)) {
    return fail(error,
                QUIRE_INVALID,
                "standard backward needs %lld bytes of workspace, got %lld",
                static_cast<long long>(standard_backward_workspace_bytes(args)),
                static_cast<long long>(args.workspace_bytes));
  }
  return args.dtype == QUIRE_BFLOAT16 ? Standard<__nv_bfloat16>{args, error}.backward(grad)
                                      : Standard<__half>{args, error}.backward(grad);
}

}  // namespace quire::cuda
