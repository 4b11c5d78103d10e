// Launches the sm_90a forward kernel: tensor maps, packing of GQA heads, order of the tiles.
#include "kernels/cuda/sm90/forward.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "kernels/cuda/host.h"

namespace quire::cuda::sm90 {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

// How many heads of a KV group become adjacent rows of a tile: the largest power of two that
// divides the group, at most 64 (a warpgroup's rows). 0 in log2 when there is one query head per KV
// head.
int pack_log2(const QuireAttentionArgs& args) {
  const int group = args.num_heads / args.num_kv_heads;
  int log2 = 0;
  while (log2 < 6 && group % (2 << log2) == 0) ++log2;
  return log2;
}

int map_rows(CUtensorMap* map,
             const QuireAttentionArgs& args,
             const void* base,
             int64_t stride_batch,
             int64_t stride_token,
             int64_t stride_head,
             int log2,
             bool output,
             QuireAttentionError* error) {
  const uint64_t pack = 1ull << log2;
  TensorMapSpec spec = {5, base, {}, {}, {64, static_cast<uint32_t>(pack), 64u >> log2, 1, 1}};
  const bool varlen = args.cu_seqlens_q != nullptr;
  const uint64_t sizes[5] = {static_cast<uint64_t>(args.head_dim),
                             pack,
                             static_cast<uint64_t>(varlen ? args.total_q : args.max_seqlen_q),
                             args.num_heads / pack,
                             static_cast<uint64_t>(varlen ? 1 : args.batch)};
  const int64_t strides[5] = {1, stride_head, stride_token, stride_head << log2, stride_batch};
  std::copy(sizes, sizes + 5, spec.sizes);
  std::copy(strides, strides + 5, spec.strides);
  return encode_tensor_map(map, spec, output ? "o" : "q", error);
}

// A paged cache can be copied a box of tokens at a time, all columns at once, if columns come in
// whole slabs and blocks begin at multiples of the stride of heads: (head, block) then is one
// coordinate, which leaves the five dimensions {64 columns, 8 tokens, slab, 8-token group, (head,
// block)}.
int64_t head_step(const QuireAttentionArgs& args, int64_t stride_batch, int64_t stride_head) {
  return args.num_kv_heads == 1 ? stride_batch : stride_head;
}
bool can_group(const QuireAttentionArgs& args, const ForwardKernel& kernel) {
  const int64_t k_step = head_step(args, args.k_stride_batch, args.k_stride_head);
  const int64_t v_step = head_step(args, args.v_stride_batch, args.v_stride_head);
  return args.block_table != nullptr && args.head_dim == kernel.head_dim && k_step > 0 &&
         v_step > 0 && args.k_stride_batch % k_step == 0 && args.v_stride_batch % v_step == 0 &&
         args.k_stride_batch / k_step == args.v_stride_batch / v_step &&
         args.total_k * (args.k_stride_batch / k_step) < INT32_MAX;
}

int map_grouped_keys(CUtensorMap* map,
                     const QuireAttentionArgs& args,
                     const ForwardParams& params,
                     const void* base,
                     int64_t stride_batch,
                     int64_t stride_token,
                     int64_t stride_head,
                     bool split,
                     const char* name,
                     QuireAttentionError* error) {
  const uint32_t slabs = args.head_dim / 64;
  TensorMapSpec spec = {5, base, {}, {}, {64, 8, slabs, params.box_rows / 8u, 1}};
  spec.promote_256 = !split;
  const int64_t step = head_step(args, stride_batch, stride_head);
  const uint64_t sizes[5] = {
      64,
      8,
      slabs,
      static_cast<uint64_t>(args.block_size / 8),
      static_cast<uint64_t>((args.total_k - 1) * (stride_batch / step) + args.num_kv_heads)};
  const int64_t strides[5] = {1, stride_token, 64, 8 * stride_token, step};
  std::copy(sizes, sizes + 5, spec.sizes);
  std::copy(strides, strides + 5, spec.strides);
  return encode_tensor_map(map, spec, name, error);
}

int map_keys(CUtensorMap* map,
             const QuireAttentionArgs& args,
             const ForwardParams& params,
             const void* base,
             int64_t stride_batch,
             int64_t stride_token,
             int64_t stride_head,
             bool split,
             const char* name,
             QuireAttentionError* error) {
  TensorMapSpec spec = {4, base, {}, {}, {64, static_cast<uint32_t>(params.box_rows), 1, 1}};
  spec.promote_256 = !split;
  int64_t size = args.max_seqlen_k, z = args.batch;
  if (args.block_table != nullptr) {
    size = args.block_size;
    z = args.total_k;
  } else if (args.cu_seqlens_k != nullptr) {
    size = args.total_k;
    z = 1;
  }
  const uint64_t sizes[4] = {static_cast<uint64_t>(args.head_dim),
                             static_cast<uint64_t>(size),
                             static_cast<uint64_t>(args.num_kv_heads),
                             static_cast<uint64_t>(z)};
  const int64_t strides[4] = {1, stride_token, stride_head, stride_batch};
  std::copy(sizes, sizes + 4, spec.sizes);
  std::copy(strides, strides + 4, spec.strides);
  return encode_tensor_map(map, spec, name, error);
}

ForwardParams make_params(const QuireAttentionArgs& args, const ForwardKernel& kernel) {
  ForwardParams p = {};
  p.batch = args.batch;
  p.num_heads = args.num_heads;
  p.num_kv_heads = args.num_kv_heads;
  p.head_dim = args.head_dim;
  p.max_len_q = args.max_seqlen_q;
  p.max_len_k = args.max_seqlen_k;
  p.pack_log2 = pack_log2(args);
  p.head_groups = args.num_heads >> p.pack_log2;
  p.group = args.num_heads / args.num_kv_heads;
  p.cu_q = args.cu_seqlens_q;
  p.cu_k = args.cu_seqlens_k;
  p.seqused_k = args.seqused_k;
  p.block_table = args.block_table;
  p.block_table_stride = args.block_table_stride;
  p.box_rows = kernel.tile_keys;
  if (args.block_table != nullptr) {
    p.block_log2 = std::countr_zero(static_cast<unsigned>(args.block_size));
    p.box_rows = std::gcd(args.block_size, kernel.tile_keys);
    if (kernel.grouped) {
      p.heads_per_block = static_cast<int32_t>(
          args.k_stride_batch / head_step(args, args.k_stride_batch, args.k_stride_head));
    }
  }
  p.tail_unclean =
      args.block_table != nullptr || args.cu_seqlens_k != nullptr || args.seqused_k != nullptr;
  p.window_left = args.window_left;
  p.window_right = args.window_right;
  p.scale_log2 = (args.softcap > 0 ? args.softcap : args.scale) * kLog2e;
  p.softcap_scale = args.softcap > 0 ? args.scale / args.softcap : 0.0f;
  p.sinks = args.sinks;
  p.o = args.o;
  p.o_stride_token = args.o_stride_token;
  p.o_stride_head = args.o_stride_head;
  p.lse = args.lse;
  const bool varlen = args.cu_seqlens_q != nullptr;
  p.lse_stride_head = varlen ? args.total_q : args.max_seqlen_q;
  p.lse_stride_batch = varlen ? 0 : p.lse_stride_head * args.num_heads;

  p.o_stride_batch = args.o_stride_batch;
  const int tokens = kernel.tile_rows >> p.pack_log2;
  if (varlen) {
    // A sequence of length l has ceil(l / tokens) tiles: the sum is at most total/tokens + batch.
    p.m_blocks = static_cast<int32_t>(args.total_q / tokens) + args.batch;
    p.num_tiles = p.m_blocks * p.head_groups;
  } else {
    p.m_blocks = divide_up(args.max_seqlen_q, tokens);
    p.num_tiles = p.m_blocks * p.head_groups * args.batch;
  }
  if (args.window_left >= 0 || args.window_right >= 0) {
    // Longest tiles first, over as many heads as keep K and V in half of the L2 cache.
    const int64_t head_bytes = static_cast<int64_t>(args.max_seqlen_k) * args.head_dim * 4;
    int section = 1;
    while (section < 64 && 2 * section * head_bytes <= (32 << 20)) section *= 2;
    p.section = std::max(1, section * (p.group >> p.pack_log2));
  }
  return p;
}

// Workspace: [tile counter, padded to 256 bytes] and for split kernels
// [arrivals][partial_stats][partial_o]. The counters are zero between launches.
struct SplitLayout {
  int64_t arrivals, partial_stats, partial_o, end;  // byte offsets
};

SplitLayout split_layout(const QuireAttentionArgs& args,
                         const ForwardParams& params,
                         const ForwardKernel& kernel) {
  const int64_t slots = static_cast<int64_t>(args.num_sms) * kernel.ctas_per_sm;
  // Chunks are at least a quarter of an even share of the work, plus one shorter one a tile.
  const int64_t items = args.batch_invariant ? static_cast<int64_t>(params.num_tiles) *
                                                   divide_up(args.max_seqlen_k, kInvariantChunk)
                                             : 4 * slots + params.num_tiles;
  const int64_t rows = std::min<int64_t>(64, packed_rows(args));
  SplitLayout layout;
  layout.arrivals = 256;
  layout.partial_stats = layout.arrivals + align_up(params.num_tiles * 4LL, 256);
  layout.partial_o = layout.partial_stats + align_up(items * rows * 8, 256);
  layout.end = layout.partial_o + items * rows * kernel.head_dim * 4;
  return layout;
}

}  // namespace

int64_t packed_rows(const QuireAttentionArgs& args) {
  return static_cast<int64_t>(args.max_seqlen_q) << pack_log2(args);
}

int64_t forward_workspace_bytes(const QuireAttentionArgs& args, const ForwardKernel& kernel) {
  if (!splits(kernel)) return 256;
  return split_layout(args, make_params(args, kernel), kernel).end;
}

// d64 has tiles of 192 rows, and of 128 for short causal sequences: less of those tiles lies above
// the diagonal (4 to 7 % faster up to 1024 tokens; slower beyond, and without a mask).
static bool prefers_fewer_rows(const QuireAttentionArgs& args) {
  return args.window_right >= 0 && args.max_seqlen_q <= 1024;
}
// Among the instantiations that can do it: the smallest head dimension, then the one made for it.
static int rank(const QuireAttentionArgs& args, const ForwardKernel& kernel) {
  const bool invariant = kernel.plan == KeyPlan::kSplitInvariant;
  const bool preferred = prefers_fewer_rows(args) == (kernel.tile_rows <= 128);
  return kernel.head_dim * 8 - 4 * invariant - 2 * kernel.grouped - preferred;
}

const ForwardKernel* find_forward(const QuireAttentionArgs& args,
                                  const char* stage,
                                  const char** reason) {
  *reason = nullptr;
  if (args.arch != 90) *reason = "needs compute capability 9.0";
  if (args.head_dim % 8 != 0 || args.head_dim > 256)
    *reason = "head_dim not a multiple of 8 up to 256";
  if (args.block_table != nullptr &&
      (args.block_size < 16 || args.block_size > 256 ||
       !std::has_single_bit(static_cast<unsigned>(args.block_size)))) {
    *reason = "block_size not 16, 32, 64, 128 or 256";
  }
  if (args.block_table != nullptr && std::strcmp(stage, "no_specialisation") == 0) {
    *reason = "the ablation loads dense keys only";
  }
  if (*reason != nullptr) return nullptr;
  const ForwardKernel* best = nullptr;
  for (int i = 0; i < kNumForwardKernels; ++i) {
    const ForwardKernel* kernel = kForwardKernels[i];
    if (kernel->dtype != args.dtype || kernel->head_dim < args.head_dim ||
        kernel->softcap != (args.softcap > 0) || std::strcmp(kernel->stage, stage) != 0 ||
        (kernel->grouped && !can_group(args, *kernel)) ||
        (kernel->plan == KeyPlan::kSplitInvariant && !args.batch_invariant)) {
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
  ForwardParams params = make_params(args, kernel);
  if (params.num_tiles == 0) return QUIRE_OK;
  CUtensorMap maps[4];
  int code = map_rows(&maps[0],
                      args,
                      args.q,
                      args.q_stride_batch,
                      args.q_stride_token,
                      args.q_stride_head,
                      params.pack_log2,
                      false,
                      error);
  const auto map = kernel.grouped ? map_grouped_keys : map_keys;
  if (code == QUIRE_OK) {
    code = map(&maps[1],
               args,
               params,
               args.k,
               args.k_stride_batch,
               args.k_stride_token,
               args.k_stride_head,
               splits(kernel),
               "k",
               error);
  }
  if (code == QUIRE_OK) {
    code = map(&maps[2],
               args,
               params,
               args.v,
               args.v_stride_batch,
               args.v_stride_token,
               args.v_stride_head,
               splits(kernel),
               "v",
               error);
  }
  if (code == QUIRE_OK) {
    code = map_rows(&maps[3],
                    args,
                    args.o,
                    args.o_stride_batch,
                    args.o_stride_token,
                    args.o_stride_head,
                    params.pack_log2,
                    true,
                    error);
  }
  if (code != QUIRE_OK) return code;
  char* workspace = static_cast<char*>(args.workspace);
  params.next_tile = reinterpret_cast<int32_t*>(workspace);
  int ctas = args.num_sms * kernel.ctas_per_sm;
  if (splits(kernel)) {
    const SplitLayout layout = split_layout(args, params, kernel);
    params.slots = ctas;
    params.chunk_tokens = args.batch_invariant ? kInvariantChunk : 0;
    params.partial_rows = static_cast<int32_t>(std::min<int64_t>(64, packed_rows(args)));
    params.arrivals = reinterpret_cast<int32_t*>(workspace + layout.arrivals);
    params.partial_stats = reinterpret_cast<float2*>(workspace + layout.partial_stats);
    params.partial_o = reinterpret_cast<float*>(workspace + layout.partial_o);
  } else {
    ctas = kernel.plan == KeyPlan::kUnspecialised ? params.num_tiles
                                                  : std::min(params.num_tiles, ctas);
  }
  void* arguments[] = {&maps[0], &maps[1], &maps[2], &maps[3], &params};
  return launch(
      kernel.entry, dim3(ctas), kernel.threads, kernel.smem_bytes, arguments, args, error, true);
}

}  // namespace quire::cuda::sm90
