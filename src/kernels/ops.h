// The op interface: argument structs and the table of functions that a backend provides.
//
// Plain data only, no inline functions: units of every ISA level include this header, and a
// function emitted by two of them could be linked from the wrong one (ARCHITECTURE.md, "CPU
// units"). Shapes: T tokens of the step, S sequences, E hidden, H query heads, K KV heads, D head
// dim, I intermediate, V vocabulary, B tokens per KV block, N blocks. All activations are f32.
//
// Exactness (every op, every backend): row t of an output depends on row t of the inputs alone, bit
// for bit, whatever T is, wherever the row stands and however many threads run.
#pragma once

#include <stdint.h>

#include "tensor/dtype.h"

namespace quire {

struct MatF {  // row-major f32 matrix; stride is in elements
  float* data;
  int64_t rows, cols, stride;
};
struct ConstMatF {
  const float* data;
  int64_t rows, cols, stride;
};

// A fork-join pool as ops see it: run() calls body(arg, thread, num_threads) once on each thread
// and returns when all have returned.
struct Parallel {
  void* pool;
  int32_t num_threads;
  void (*run)(void* pool, void (*body)(void* arg, int32_t thread, int32_t num_threads), void* arg);
};

// Scratch memory of one thread, 64-byte aligned. An op may use all of it, in any thread, until it
// returns.
inline constexpr int64_t kScratchBytesPerThread = 8 << 20;

struct ExecContext {
  Parallel parallel;
  unsigned char* scratch;  // [num_threads][kScratchBytesPerThread]
};

// ---- Linear
// ---------------------------------------------------------------------------------------

// How activations enter a matrix product. kInt16: one scale per row, x = scale * q, |q| <= 32512,
// which keeps the f32 model's answers; kInt8: one scale per row and group of 32, |q| <= 127.
// Weights of type f32, f16 and bf16 are multiplied by kF32 activations only.
enum class ActivationType : uint8_t { kF32, kInt16, kInt8 };

// A weight matrix W [n, k] (y = x W^T) in panels of 32 rows of W, that is 32 output columns
// (kernels/pack.h). n is padded to 32 and k to the format's block with zero weights.
struct PackedMatrix {
  DType type;
  int64_t n, k;
  const unsigned char* data;  // 64-byte aligned, packed_bytes(type, n, k) bytes
};

// Rows prepared for `linear`; the layout behind `data` belongs to the op table that wrote it.
struct Activations {
  ActivationType type;
  int64_t rows, cols;
  unsigned char* data;  // 64-byte aligned, activation_bytes(type, rows, cols) bytes
};

// out = quantised x [T, k].
struct QuantizeArgs {
  ConstMatF x;
  Activations out;
};

// y[t, :] = (add_to_y ? y[t, :] : 0) + concat over segments of (x W_s^T)[t, :] + bias. K is summed
// in one fixed order that does not depend on T, threads or tiling: weight groups of 32 in
// increasing order; within a group the integer sum is exact, for f32 activations k increases.
struct LinearArgs {
  Activations x;                 // [T, k]
  const PackedMatrix* segments;  // each [n_s, k]; output columns follow one another
  int32_t num_segments;
  const float* bias;  // [sum n_s] or null
  bool add_to_y;
  MatF y;  // [T, sum n_s]
};

// out[t, :] = row ids[t] of the table.
struct EmbeddingArgs {
  PackedMatrix table;  // [V, E]
  const int32_t* ids;  // [T], each in [0, V)
  MatF out;            // [T, E]
};

// Fused: the bits of the ops named, one after another, with no row but the one at hand in memory.
// A table may have null for these; then the ops themselves run (model/layers.cc).
enum class NormKind : uint8_t { kRms, kLayer };
// x += added (where added.data is not null), then quantize(norm(x)) -> out, and norm(x) -> y where
// y.data is not null.
struct NormQuantizeArgs {
  NormKind kind;
  ConstMatF added;
  MatF x;  // [T, E]
  const float* weight;
  const float* bias;  // of kLayer; may be null
  float eps;
  MatF y;  // may be x
  Activations out;
};
// quantize(activation(x)) -> out.
enum class ActivationFunction : uint8_t { kRelu, kSiluAndMul };
struct ActivateQuantizeArgs {
  ActivationFunction function;
  ConstMatF x;      // [T, I]; kSiluAndMul: [gate | up], [T, 2I]
  Activations out;  // [T, I]
};

// ---- Normalisation and element-wise
// ---------------------------------------------------------------

// y[t,:] = x[t,:] / sqrt(mean(x[t,:]^2) + eps) * weight.     Zhang & Sennrich, arXiv:1910.07467,
// eq. 4
struct RmsNormArgs {
  ConstMatF x;
  const float* weight;  // [E]
  float eps;
  MatF y;  // may alias x
};

// Each head of x [T, heads * head_dim] is normalised by itself, in place (QK norm of Qwen3).
struct HeadRmsNormArgs {
  MatF x;
  int32_t heads, head_dim;
  const float* weight;  // [head_dim]
  float eps;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias.           Ba et al., arXiv:1607.06450, eq. 4
struct LayerNormArgs {
  ConstMatF x;
  const float* weight;
  const float* bias;  // may be null
  float eps;
  MatF y;  // may alias x
};

struct AddArgs {  // y += x
  ConstMatF x;
  MatF y;
};

struct AddBiasArgs {  // y[t,:] += bias
  const float* bias;  // [n]
  MatF y;             // [T, n]
};

// y = silu(gate) * up, silu(a) = a / (1 + exp(-a)); gate_up = [gate | up], [T, 2I].
struct SiluAndMulArgs {
  ConstMatF gate_up;
  MatF y;  // [T, I]
};

struct ReluArgs {  // in place
  MatF x;
};

// Rotates pairs (i, i + rotary_dim/2) of each head in place.   Su et al., arXiv:2104.09864, eq. 34
struct RopeArgs {
  MatF x;  // [T, heads * head_dim]
  int32_t heads, head_dim, rotary_dim;
  const int32_t* positions;  // [T]
  const float* cos_sin;      // [max_position][rotary_dim]: rotary_dim/2 cosines, then as many sines
};

// y[i, :] = x[rows[i], :].
struct GatherRowsArgs {
  ConstMatF x;
  const int32_t* rows;
  MatF y;
};

// The k largest of each row, largest first; equal values: lower column first. NaN counts as -inf.
struct TopKArgs {
  ConstMatF x;    // [T, V]
  int32_t k;      // 1 <= k <= V
  int32_t* ids;   // [T, k]
  float* values;  // [T, k]
};

// ---- Paged attention (kernels/attention.h has the normative order)
// --------------------------------

// One layer of the KV cache: blocks [N], each [num_kv_heads]{ keys [D][B], values [B][D] } of
// `dtype` (kF32, kF16 or kBF16): keys have tokens in lanes.
struct KvLayout {
  DType dtype;
  int32_t block_size;              // B, a power of two in [1, 256]
  int32_t num_kv_heads, head_dim;  // head_dim <= 1024
};

// Writes k, v [T, K*D] to slots[t] = block * B + offset; where slots[t] is -1, token t's KV is
// there already and nothing is written. A value beyond the range of f16 is saturated and counted in
// *overflows (atomically).
struct KvWriteArgs {
  ConstMatF k, v;
  const int64_t* slots;
  KvLayout layout;
  unsigned char* kv_layer;
  int64_t* overflows;
};

// out = softmax(scale * q k^T + mask) v for every token of the step against its sequence's cached
// KV, this step's tokens included (they have been written). Token i of sequence s (query rows
// query_start[s] .. query_start[s+1]) has position kv_len[s] - num_queries + i and sees positions
// (position - window, position].
struct AttentionArgs {
  ConstMatF q;        // [T, H*D]
  int32_t num_heads;  // H, a multiple of K
  KvLayout layout;
  const unsigned char* kv_layer;
  int32_t num_seqs;
  const int32_t* query_start;  // [S+1]
  const int32_t* kv_len;       // [S]
  const int32_t*
      block_tables;  // [S, block_table_stride]; entries beyond ceil(kv_len/B) are undefined
  int32_t block_table_stride;
  float scale;
  int32_t window;  // 0: no window
  MatF out;        // [T, H*D]
};

// Attention as it was before FlashAttention, in three ops: attention_scores writes S = scale q k^T,
// attention_softmax turns S into P and attention_values multiplies P by v. On a CPU level the three
// give the bits of `attention`: P, too, is taken tile by tile in the order of kernels/attention.h,
// with the factors that belong to it. (ref keeps doubles in `attention` and rounds S and P here.)
// Row (k * T + t) * H / K + i is query token t and head k * H / K + i; key j is column j.
struct StandardAttentionArgs {
  AttentionArgs attention;
  MatF scores;   // [T * H, longest kv_len rounded up to kAttentionTile]
  MatF factors;  // [T * H, tiles]: c of each tile that the row sees
  MatF totals;   // [T * H, 2 * partials]: m and l of each partial; l = 0: it sees none of its keys
};

// ---- The table
// ------------------------------------------------------------------------------------

// Ops on packed weights and on rows prepared for them, whose integer kernels differ most between
// levels, and all others.
#define QUIRE_MATRIX_OPS(X)                  \
  X(quantize, QuantizeArgs)                  \
  X(norm_quantize, NormQuantizeArgs)         \
  X(activate_quantize, ActivateQuantizeArgs) \
  X(linear, LinearArgs)                      \
  X(embedding, EmbeddingArgs)

#define QUIRE_OTHER_OPS(X)                    \
  X(rms_norm, RmsNormArgs)                    \
  X(head_rms_norm, HeadRmsNormArgs)           \
  X(layer_norm, LayerNormArgs)                \
  X(add, AddArgs)                             \
  X(add_bias, AddBiasArgs)                    \
  X(silu_and_mul, SiluAndMulArgs)             \
  X(relu, ReluArgs)                           \
  X(rope, RopeArgs)                           \
  X(gather_rows, GatherRowsArgs)              \
  X(top_k, TopKArgs)                          \
  X(kv_write, KvWriteArgs)                    \
  X(attention, AttentionArgs)                 \
  X(attention_scores, StandardAttentionArgs)  \
  X(attention_softmax, StandardAttentionArgs) \
  X(attention_values, StandardAttentionArgs)

#define QUIRE_OPS(X)  \
  QUIRE_MATRIX_OPS(X) \
  QUIRE_OTHER_OPS(X)

struct OpTable {
  const char* name;  // "ref", "generic", "avx2", "avx512", "avx512_vnni"
#define QUIRE_OP_MEMBER(op, Args) void (*op)(const ExecContext& exec, const Args& args);
  QUIRE_OPS(QUIRE_OP_MEMBER)
#undef QUIRE_OP_MEMBER
};

}  // namespace quire
