// Where the rows of one sequence lie, for the kernels that address global memory themselves.
#pragma once

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/quire_attention.h"

namespace quire::cuda {

struct Sequence {
  int batch;
  int len_q, len_k;
  int64_t q_start, k_start;  // element offset of token 0 before head and token strides: batch *
                             // stride, or packed
  int64_t o_start, v_start;
  int64_t lse_start;  // row 0 of head 0 in [batch, heads, max_q] or [heads, total_q]
  int64_t lse_stride_head;
};

__device__ __forceinline__ Sequence get_sequence(const QuireAttentionArgs& a, int b) {
  Sequence s;
  s.batch = b;
  if (a.cu_seqlens_q != nullptr) {
    const int64_t start = a.cu_seqlens_q[b];
    s.len_q = a.cu_seqlens_q[b + 1] - a.cu_seqlens_q[b];
    s.q_start = start * a.q_stride_token;
    s.o_start = start * a.o_stride_token;
    s.lse_start = start;
    s.lse_stride_head = a.total_q;
  } else {
    s.len_q = a.max_seqlen_q;
    s.q_start = b * a.q_stride_batch;
    s.o_start = b * a.o_stride_batch;
    s.lse_start = static_cast<int64_t>(b) * a.num_heads * a.max_seqlen_q;
    s.lse_stride_head = a.max_seqlen_q;
  }
  if (a.cu_seqlens_k != nullptr) {
    const int64_t start = a.cu_seqlens_k[b];
    s.len_k = a.cu_seqlens_k[b + 1] - a.cu_seqlens_k[b];
    s.k_start = start * a.k_stride_token;
    s.v_start = start * a.v_stride_token;
  } else {
    s.len_k = a.max_seqlen_k;
    s.k_start = a.block_table != nullptr ? 0 : b * a.k_stride_batch;
    s.v_start = a.block_table != nullptr ? 0 : b * a.v_stride_batch;
  }
  if (a.seqused_k != nullptr) s.len_k = a.seqused_k[b];
  return s;
}

// Element offset of key (or value) token j within the sequence's tensor, without the head.
__device__ __forceinline__ int64_t key_offset(
    const QuireAttentionArgs& a, int batch, int j, int64_t stride_batch, int64_t stride_token) {
  if (a.block_table == nullptr) return j * stride_token;
  const int block = a.block_table[batch * a.block_table_stride + j / a.block_size];
  return block * stride_batch + (j % a.block_size) * stride_token;
}

// Keys [low, high) that a query sees which stands at key `position`.
__device__ __forceinline__ void visible_keys(
    const QuireAttentionArgs& a, int len_k, int position, int* low, int* high) {
  *low = a.window_left >= 0 ? max(0, position - a.window_left) : 0;
  *high = a.window_right >= 0 ? min(len_k, position + a.window_right + 1) : len_k;
}
// Whether any of the queries that stand at keys position.. does not see one of the keys first...
// For every key block anew, so that a main loop need not keep the bounds in registers.
__device__ __forceinline__ bool some_key_hidden(
    const QuireAttentionArgs& a, int len_k, int position, int queries, int first, int keys) {
  asm volatile("" : "+r"(position));
  return first + keys > len_k ||
         (a.window_right >= 0 && first + keys > position + a.window_right + 1) ||
         (a.window_left >= 0 && first < position + queries - 1 - a.window_left);
}
// Keys [low, high) that query i sees.
__device__ __forceinline__ void visible_keys(
    const QuireAttentionArgs& a, int len_q, int len_k, int i, int* low, int* high) {
  visible_keys(a, len_k, i + len_k - len_q, low, high);
}

}  // namespace quire::cuda
