// Between the QKV projection and attention, in one pass over memory: RMS norm of each query and key
// head (optional), rotary position embedding, and the write of K and V into the paged cache.
//
//   norm    x := x / sqrt(mean(x^2) + eps) * weight
//   rotate  (x_i, x_j) := (x_i cos - x_j sin, x_j cos + x_i sin), j = i + rotary_dim/2, or, when
//           interleaved, pairs (2i, 2i+1)
//
// A lane holds 8 neighbouring values (16 bytes) of one head, kLanes lanes a head; its rotation
// partner is a shuffle away. Values pass through f32 and are rounded once.
// bound  bytes: q, k and v read and written once, two positions' angles from L2.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/cache/rope_write.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/ptx.cuh"

namespace quire::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float2 unpack2(uint32_t x, __nv_bfloat16) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xFFFF0000u));
}
__device__ __forceinline__ float2 unpack2(uint32_t x, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&x));
}

template <typename T>
__device__ __forceinline__ void load8(float (&x)[8], const T* p) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack2(words[i], T());
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
}
template <typename T>
__device__ __forceinline__ void store8(T* p, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(p) = make_uint4(
      pack2<T>(x[0], x[1]), pack2<T>(x[2], x[3]), pack2<T>(x[4], x[5]), pack2<T>(x[6], x[7]));
}

template <typename T, int kLanes>
__device__ __forceinline__ void normalise(float (&x)[8], const T* weight, int dim, float eps) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x[i] * x[i];
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  const float factor = rsqrtf(sum / dim + eps);
  const int column = threadIdx.x % kLanes * 8;
  if (column >= dim) return;
  float w[8];
  load8(w, weight + column);
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] *= factor * w[i];
}

// angles: cos of all pairs, then sin of all pairs, of the token's position.
template <int kLanes>
__device__ __forceinline__ void rotate(float (&x)[8],
                                       const float* angles,
                                       int rotary_dim,
                                       bool interleaved) {
  const int column = threadIdx.x % kLanes * 8, half = rotary_dim / 2;
  const bool inside = column < rotary_dim;
  if (interleaved) {
    if (!inside) return;
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const float c = angles[(column + i) / 2], s = angles[half + (column + i) / 2];
      const float a = x[i], b = x[i + 1];
      x[i] = a * c - b * s;
      x[i + 1] = b * c + a * s;
    }
    return;
  }
  const bool first = column < half;
  const int lane = threadIdx.x % 32, partner = lane + (first ? half / 8 : -half / 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_sync(0xffffffffu, x[i], inside ? partner : lane);
    if (!inside) continue;
    const int pair = first ? column + i : column + i - half;
    const float c = angles[pair], s = angles[half + pair];
    x[i] = first ? x[i] * c - other * s : x[i] * c + other * s;
  }
}

// One head of one token by kLanes lanes. Heads: the queries, then the keys, then the values.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kThreads)
    rope_write_kernel(const __grid_constant__ QuireRopeWriteArgs a) {
  const int heads = a.num_heads + 2 * a.num_kv_heads;
  const int64_t item = blockIdx.x * static_cast<int64_t>(kThreads / kLanes) + threadIdx.x / kLanes;
  const bool exists = item < static_cast<int64_t>(a.num_tokens) * heads;
  const int token = exists ? static_cast<int>(item / heads) : 0;
  const int head = static_cast<int>(item - static_cast<int64_t>(token) * heads);
  const int column = threadIdx.x % kLanes * 8;
  const bool used = exists && column < a.head_dim;
  const bool is_q = head < a.num_heads, is_v = head >= a.num_heads + a.num_kv_heads;
  const int kv_head = is_q ? 0 : (head - a.num_heads) % a.num_kv_heads;

  const T* from = is_q   ? static_cast<const T*>(a.q) + token * a.q_stride_token
                  : is_v ? static_cast<const T*>(a.v) + token * a.v_stride_token
                         : static_cast<const T*>(a.k) + token * a.k_stride_token;
  from += is_q ? head * a.q_stride_head : kv_head * (is_v ? a.v_stride_head : a.k_stride_head);
  float x[8] = {};
  if (used) load8(x, from + column);
  // Shuffles need all lanes of the warp: values are normalised and rotated too, and then not used.
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) y[i] = x[i];
  const T* weight = static_cast<const T*>(is_q ? a.q_norm : a.k_norm);
  if (a.q_norm != nullptr) normalise<T, kLanes>(y, weight, a.head_dim, a.eps);
  const int position = a.positions[token];
  rotate<kLanes>(
      y, a.angles + static_cast<int64_t>(position) * a.rotary_dim, a.rotary_dim, a.interleaved);
  if (!used) return;
  if (is_q) {
    T* to = static_cast<T*>(a.q_out) + token * a.q_out_stride_token + head * a.q_out_stride_head;
    store8(to + column, y);
    return;
  }
  const int64_t slot = a.slots[token];
  if (slot < 0) return;  // a padding token of a graph
  const int64_t block = slot / a.block_size, row = slot - block * a.block_size;
  const int64_t at = block * a.cache_stride_block + row * a.cache_stride_token +
                     kv_head * a.cache_stride_head + column;
  if (is_v) {
    store8(static_cast<T*>(a.v_cache) + at, x);
  } else {
    store8(static_cast<T*>(a.k_cache) + at, y);
  }
}

template <typename T>
const void* kernel_for(int head_dim) {
  if (head_dim <= 64) return reinterpret_cast<const void*>(&rope_write_kernel<T, 8>);
  if (head_dim <= 128) return reinterpret_cast<const void*>(&rope_write_kernel<T, 16>);
  return reinterpret_cast<const void*>(&rope_write_kernel<T, 32>);
}

}  // namespace

int validate_rope_write(const QuireRopeWriteArgs& a, QuireAttentionError* error) {
  if (a.struct_size != sizeof(QuireRopeWriteArgs)) {
    return fail(error,
                QUIRE_INVALID,
                "struct_size is %u, this library has %zu: rebuild the caller with its header",
                a.struct_size,
                sizeof(QuireRopeWriteArgs));
  }
  if (a.dtype != QUIRE_FLOAT16 && a.dtype != QUIRE_BFLOAT16) {
    return fail(error, QUIRE_INVALID, "dtype must be 0 (float16) or 1 (bfloat16), got %d", a.dtype);
  }
  if (a.head_dim < 8 || a.head_dim > 256 || a.head_dim % 8 != 0) {
    return fail(error,
                QUIRE_UNSUPPORTED,
                "head_dim must be a multiple of 8 from 8 to 256, got %d",
                a.head_dim);
  }
  if (a.rotary_dim < 0 || a.rotary_dim > a.head_dim || a.rotary_dim % 16 != 0) {
    return fail(error,
                QUIRE_UNSUPPORTED,
                "rotary_dim must be a multiple of 16 up to head_dim %d, got %d",
                a.head_dim,
                a.rotary_dim);
  }
  if (a.num_tokens < 0 || a.num_heads < 1 || a.num_kv_heads < 1 || a.block_size < 1) {
    return fail(error,
                QUIRE_INVALID,
                "sizes out of range: %d tokens, %d heads, %d KV heads, blocks of %d",
                a.num_tokens,
                a.num_heads,
                a.num_kv_heads,
                a.block_size);
  }
  if ((a.q_norm == nullptr) != (a.k_norm == nullptr)) {
    return fail(error, QUIRE_INVALID, "q_norm and k_norm must be given together");
  }
  return QUIRE_OK;
}

int run_rope_write(const QuireRopeWriteArgs& a, QuireAttentionError* error) {
  if (a.num_tokens == 0) return QUIRE_OK;
  const int lanes = a.head_dim <= 64 ? 8 : a.head_dim <= 128 ? 16 : 32;
  const int64_t items = static_cast<int64_t>(a.num_tokens) * (a.num_heads + 2 * a.num_kv_heads);
  const int64_t ctas = (items * lanes + kThreads - 1) / kThreads;
  const void* kernel = a.dtype == QUIRE_BFLOAT16 ? kernel_for<__nv_bfloat16>(a.head_dim)
                                                 : kernel_for<__half>(a.head_dim);
  QuireRopeWriteArgs copy = a;
  void* arguments[] = {&copy};
  return check_cuda(cudaLaunchKernel(kernel,
                                     dim3(static_cast<unsigned>(ctas)),
                                     dim3(kThreads),
                                     arguments,
                                     0,
                                     static_cast<cudaStream_t>(a.stream)),
                    "launching the rope and cache write kernel",
                    error);
}

}  // namespace quire::cuda
