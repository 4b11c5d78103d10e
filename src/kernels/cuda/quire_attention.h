/* Attention on NVIDIA GPUs: the C interface of libquire_cuda.so. Plain data only; all tensor
 * pointers are device memory, strides are in elements, the last dimension is contiguous. Nothing
 * here allocates or synchronises.
 *
 *   O = softmax(mask(scale * Q K^T)) V      per batch entry and query head h, with KV head h /
 * (num_heads / num_kv_heads)
 *
 * Three layouts of sequences:
 *   dense   q[b, i, h, :] = q + b*q_stride_batch + i*q_stride_token + h*q_stride_head, all
 * sequences of equal length varlen  cu_seqlens_q / cu_seqlens_k [batch + 1]: the tokens of all
 * sequences are packed, batch strides unused paged   block_table [batch, max blocks]: key j of
 * sequence b is token j % block_size of block block_table[b, j / block_size]; k_stride_batch is
 * then the stride between blocks. Lengths in seqused_k. Masks are aligned to the bottom right:
 * query i of len_q stands at key position i + len_k - len_q.
 */
#ifndef QUIRE_ATTENTION_H_
#define QUIRE_ATTENTION_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_ATTENTION_VERSION 1

enum { QUIRE_FLOAT16 = 0, QUIRE_BFLOAT16 = 1 };

enum {
  QUIRE_OK = 0,
  QUIRE_UNSUPPORTED = 1, /* no kernel can do this; the message says which limit was met */
  QUIRE_INVALID = 2,     /* the arguments contradict each other */
  QUIRE_CUDA_ERROR = 3
};

typedef struct QuireAttentionError {
  int32_t code;
  char message[252];
} QuireAttentionError;

typedef struct QuireAttentionArgs {
  uint32_t struct_size; /* sizeof(QuireAttentionArgs), checked */
  int32_t dtype;
  int32_t arch; /* compute capability, 90 for Hopper; kernel choice depends on it, so it is an
                   argument */
  int32_t num_sms;

  int32_t batch, num_heads, num_kv_heads, head_dim;
  int32_t max_seqlen_q, max_seqlen_k; /* dense: the lengths; otherwise upper bounds */
  int64_t total_q, total_k;           /* varlen: packed tokens; paged: total_k = number of blocks */

  const void *q, *k, *v;
  void* o;
  float* lse; /* natural log; [batch, num_heads, max_seqlen_q], varlen: [num_heads, total_q]; may be
                 null */
  int64_t q_stride_batch, q_stride_token, q_stride_head;
  int64_t k_stride_batch, k_stride_token, k_stride_head;
  int64_t v_stride_batch, v_stride_token, v_stride_head;
  int64_t o_stride_batch, o_stride_token, o_stride_head;

  const int32_t* cu_seqlens_q; /* null: dense */
  const int32_t* cu_seqlens_k; /* null: dense or paged */
  const int32_t* seqused_k;    /* [batch]: keys really present; null: all */
  const int32_t* block_table;  /* null: not paged */
  int64_t block_table_stride;
  int32_t block_size;

  int32_t window_left, window_right; /* visible keys around the query's own position; -1: no limit.
                                        causal = (-1, 0) */
  float scale;
  float softcap;      /* 0: off; otherwise scores become softcap * tanh(score / softcap) */
  const float* sinks; /* [num_heads] extra logits without a value; null: none */

  int32_t batch_invariant; /* 1: a sequence's result does not depend on the rest of the batch, bit
                              for bit */

  /* At least QuireAttentionKernel.workspace_bytes(args), 256-byte aligned, zero before its first
   * use; kernels leave their counters in it zero, so it may be used again and again, but by one
   * stream at a time. */
  void* workspace;
  int64_t workspace_bytes;
  void* stream; /* cudaStream_t */
} QuireAttentionArgs;

/* Gradients. o, lse: results of the forward pass. Strides of do, dq, dk, dv are those of o, q, k,
 * v. */
typedef struct QuireAttentionGrad {
  const void* d_o;
  void *dq, *dk, *dv;
  int32_t deterministic; /* 1: bit-identical from run to run, at the price of computing S twice */
} QuireAttentionGrad;

typedef struct QuireAttentionKernel {
  const char* name;
  const char* paper;
  /* 1 if the kernel can run this; otherwise 0 and the reason in *reason (a static string). Reads no
   * device memory. */
  int (*supports)(const QuireAttentionArgs* args, const char** reason);
  /* Relative estimate of the time, for choosing among the kernels that support the arguments. */
  double (*cost)(const QuireAttentionArgs* args);
  int64_t (*workspace_bytes)(const QuireAttentionArgs* args);
  int (*run)(const QuireAttentionArgs* args, QuireAttentionError* error);
} QuireAttentionKernel;

/* The forward kernels, the always-supporting double-precision reference last. */
int32_t quire_attention_version(void);
int32_t quire_attention_num_kernels(void);
const QuireAttentionKernel* quire_attention_kernel(int32_t index);

/* The cheapest kernel that supports args, or null with the reasons of all in error. Pure; needs no
 * GPU. */
const QuireAttentionKernel* quire_attention_select(const QuireAttentionArgs* args,
                                                   QuireAttentionError* error);

int quire_attention_forward(const QuireAttentionArgs* args, QuireAttentionError* error);

int64_t quire_attention_backward_workspace_bytes(const QuireAttentionArgs* args,
                                                 const QuireAttentionGrad* grad);
int quire_attention_backward(const QuireAttentionArgs* args,
                             const QuireAttentionGrad* grad,
                             QuireAttentionError* error);

/* The baseline of the papers: gradients with S, P, dP and dS as whole matrices in memory, dense
 * only. The workspace need not be zero. */
int64_t quire_attention_standard_backward_workspace_bytes(const QuireAttentionArgs* args);
int quire_attention_standard_backward(const QuireAttentionArgs* args,
                                      const QuireAttentionGrad* grad,
                                      QuireAttentionError* error);

/* What happens to q, k and v between their projection and attention: RMS norm over every query and
 * key head (when q_norm and k_norm are given), rotary position embedding of the first rotary_dim
 * values, and the write of K and V into the paged cache. q, k, v: [num_tokens, heads, head_dim]. */
typedef struct QuireRopeWriteArgs {
  uint32_t struct_size; /* sizeof(QuireRopeWriteArgs), checked */
  int32_t dtype;
  int32_t num_tokens, num_heads, num_kv_heads, head_dim;
  int32_t rotary_dim;  /* multiple of 16 up to head_dim; 0: no rotation */
  int32_t interleaved; /* 1: pairs are (2i, 2i+1); 0: (i, i + rotary_dim / 2) */
  const void *q, *k, *v;
  void* q_out; /* may be q */
  int64_t q_stride_token, q_stride_head, k_stride_token, k_stride_head;
  int64_t v_stride_token, v_stride_head, q_out_stride_token, q_out_stride_head;
  const int32_t* positions;    /* [num_tokens] */
  const float* angles;         /* [positions, rotary_dim]: rotary_dim/2 cosines, then the sines */
  const void *q_norm, *k_norm; /* [head_dim] each, or both null */
  float eps;
  int32_t block_size;
  const int64_t* slots; /* [num_tokens]: block * block_size + row; negative: not written */
  void *k_cache, *v_cache;
  int64_t cache_stride_block, cache_stride_token, cache_stride_head;
  void* stream;
} QuireRopeWriteArgs;

int quire_rope_write(const QuireRopeWriteArgs* args, QuireAttentionError* error);

#ifdef __cplusplus
}
#endif

#endif /* QUIRE_ATTENTION_H_ */
