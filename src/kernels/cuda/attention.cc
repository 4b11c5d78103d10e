// The array of attention kernels and the C interface over it. Selection is pure: it reads the
// arguments alone.
#include <cmath>
#include <cstdio>
#include <cstring>

#include "kernels/cuda/cache/rope_write.h"
#include "kernels/cuda/host.h"
#include "kernels/cuda/sm80/backward.h"
#include "kernels/cuda/sm80/forward.h"
#include "kernels/cuda/sm90/forward.h"
#include "kernels/cuda/standard/standard.h"

namespace quire::cuda {
namespace {

#define QUIRE_EXPORT extern "C" __attribute__((visibility("default")))

// Products of the forward pass for every (query, key) pair, masks ignored: the scale of all costs.
double forward_flops(const QuireAttentionArgs* args) {
  return 4.0 * args->batch * args->num_heads * static_cast<double>(args->max_seqlen_q) *
         args->max_seqlen_k * args->head_dim;
}
int64_t no_workspace(const QuireAttentionArgs*) { return 0; }

// ---- sm90
// ---------------------------------------------------------------------------------------------------------

int sm90_supports_stage(const QuireAttentionArgs* args, const char* stage, const char** reason) {
  return sm90::find_forward(*args, stage, reason) != nullptr;
}
int sm90_run_stage(const QuireAttentionArgs* args, const char* stage, QuireAttentionError* error) {
  const char* reason;
  const sm90::ForwardKernel* kernel = sm90::find_forward(*args, stage, &reason);
  if (kernel == nullptr) return fail(error, QUIRE_UNSUPPORTED, "%s", reason);
  return sm90::run_forward(*args, *kernel, error);
}
double sm90_cost(const QuireAttentionArgs* args) { return forward_flops(args) / 600e12; }
// Split keys pay while one tile holds all queries of a sequence: the keys are then read once either
// way. The batch-invariant plan takes this kernel at every length: its chunks begin at multiples of
// 512 keys whatever the batch, so that prefill and decode of a token agree in every bit.
double split_cost(const QuireAttentionArgs* args) {
  return args->batch_invariant != 0 || sm90::packed_rows(*args) <= 64 ? forward_flops(args) / 10e15
                                                                      : HUGE_VAL;
}
// Chunks merged in registers: the bits of the batch-invariant plan without partial results, for
// sequences with many query rows. Where it is not instantiated, all lengths are split.
double merged_cost(const QuireAttentionArgs* args) {
  return args->batch_invariant != 0 && sm90::packed_rows(*args) > 64 ? forward_flops(args) / 20e15
                                                                     : HUGE_VAL;
}
// Ablations are listed to be tested and measured by name, never to be chosen.
double never(const QuireAttentionArgs*) { return HUGE_VAL; }

template <int kStage>
constexpr const char* kStageName = kStage == 0   ? "full"
                                   : kStage == 1 ? "no_ping_pong"
                                   : kStage == 2 ? "no_overlap"
                                   : kStage == 3 ? "no_ping_pong_no_overlap"
                                   : kStage == 4 ? "no_specialisation"
                                   : kStage == 5 ? "split"
                                                 : "merged";
template <int kStage>
int sm90_supports(const QuireAttentionArgs* args, const char** reason) {
  return sm90_supports_stage(args, kStageName<kStage>, reason);
}
template <int kStage>
int64_t sm90_workspace(const QuireAttentionArgs* args) {
  const char* reason;
  const sm90::ForwardKernel* kernel = sm90::find_forward(*args, kStageName<kStage>, &reason);
  return kernel == nullptr ? 0 : sm90::forward_workspace_bytes(*args, *kernel);
}
template <int kStage>
int sm90_run(const QuireAttentionArgs* args, QuireAttentionError* error) {
  return sm90_run_stage(args, kStageName<kStage>, error);
}

// ---- sm80
// ---------------------------------------------------------------------------------------------------------

// Br x Bc of the sweep (d64): the papers' question how tile sizes decide traffic and time.
template <int kTiles>
constexpr const char* kTilesName = kTiles == 1   ? "64x32"
                                   : kTiles == 2 ? "64x64"
                                   : kTiles == 3 ? "64x128"
                                   : kTiles == 4 ? "128x32"
                                   : kTiles == 5 ? "128x64"
                                   : kTiles == 6 ? "128x128"
                                                 : "";
template <int kTiles>
int sm80_supports(const QuireAttentionArgs* args, const char** reason) {
  return sm80::find_forward(*args, kTilesName<kTiles>, reason) != nullptr;
}
double sm80_cost(const QuireAttentionArgs* args) { return forward_flops(args) / 320e12; }
template <int kTiles>
int sm80_run(const QuireAttentionArgs* args, QuireAttentionError* error) {
  const char* reason;
  const sm80::ForwardKernel* kernel = sm80::find_forward(*args, kTilesName<kTiles>, &reason);
  if (kernel == nullptr) return fail(error, QUIRE_UNSUPPORTED, "%s", reason);
  return sm80::run_forward(*args, *kernel, error);
}

// ---- standard and reference
// ---------------------------------------------------------------------------------------

int standard_supports(const QuireAttentionArgs* args, const char** reason) {
  *reason = standard_unsupported(*args);
  return *reason == nullptr;
}
double standard_cost(const QuireAttentionArgs* args) { return forward_flops(args) / 50e12; }
int64_t standard_workspace(const QuireAttentionArgs* args) {
  return standard_workspace_bytes(*args);
}
int standard_run(const QuireAttentionArgs* args, QuireAttentionError* error) {
  return run_standard(*args, error);
}
int reference_supports(const QuireAttentionArgs* args, const char** reason) {
  *reason = args->head_dim <= 256 ? nullptr : "head_dim over 256";
  return *reason == nullptr;
}
double reference_cost(const QuireAttentionArgs* args) { return forward_flops(args) / 0.5e12; }
int reference_run(const QuireAttentionArgs* args, QuireAttentionError* error) {
  return run_reference(*args, error);
}

constexpr char kFlash3[] = "FlashAttention-3, arXiv 2407.08608";
constexpr char kFlash2[] = "FlashAttention-2, arXiv 2307.08691";
constexpr QuireAttentionKernel kKernels[] = {
    {"sm90_forward", kFlash3, sm90_supports<0>, sm90_cost, sm90_workspace<0>, sm90_run<0>},
    {"sm90_forward_no_ping_pong", kFlash3, sm90_supports<1>, never, sm90_workspace<1>, sm90_run<1>},
    {"sm90_forward_no_overlap", kFlash3, sm90_supports<2>, never, sm90_workspace<2>, sm90_run<2>},
    {"sm90_forward_no_ping_pong_no_overlap",
     kFlash3,
     sm90_supports<3>,
     never,
     sm90_workspace<3>,
     sm90_run<3>},
    {"sm90_forward_no_specialisation",
     kFlash3,
     sm90_supports<4>,
     never,
     sm90_workspace<4>,
     sm90_run<4>},
    {"sm90_split",
     "Flash-Decoding, arXiv 2311.01282, on Hopper",
     sm90_supports<5>,
     split_cost,
     sm90_workspace<5>,
     sm90_run<5>},
    {"sm90_merged", kFlash3, sm90_supports<6>, merged_cost, sm90_workspace<6>, sm90_run<6>},
    {"sm80_forward", kFlash2, sm80_supports<0>, sm80_cost, no_workspace, sm80_run<0>},
    {"sm80_forward_64x32", kFlash2, sm80_supports<1>, never, no_workspace, sm80_run<1>},
    {"sm80_forward_64x64", kFlash2, sm80_supports<2>, never, no_workspace, sm80_run<2>},
    {"sm80_forward_64x128", kFlash2, sm80_supports<3>, never, no_workspace, sm80_run<3>},
    {"sm80_forward_128x32", kFlash2, sm80_supports<4>, never, no_workspace, sm80_run<4>},
    {"sm80_forward_128x64", kFlash2, sm80_supports<5>, never, no_workspace, sm80_run<5>},
    {"sm80_forward_128x128", kFlash2, sm80_supports<6>, never, no_workspace, sm80_run<6>},
    {"standard",
     "standard attention, arXiv 2205.14135 algorithm 0",
     standard_supports,
     standard_cost,
     standard_workspace,
     standard_run},
    {"reference",
     "the formula in double",
     reference_supports,
     reference_cost,
     no_workspace,
     reference_run},
};
constexpr int kNumKernels = sizeof(kKernels) / sizeof(kKernels[0]);

// What every kernel may rely on.
int validate(const QuireAttentionArgs* a, QuireAttentionError* error) {
  if (a->struct_size != sizeof(QuireAttentionArgs)) {
    return fail(error,
                QUIRE_INVALID,
                "struct_size is %u, this library has %zu: rebuild the caller with its header",
                a->struct_size,
                sizeof(QuireAttentionArgs));
  }
  if (a->dtype != QUIRE_FLOAT16 && a->dtype != QUIRE_BFLOAT16) {
    return fail(
        error, QUIRE_INVALID, "dtype must be 0 (float16) or 1 (bfloat16), got %d", a->dtype);
  }
  if (a->num_kv_heads < 1 || a->num_heads < 1 || a->num_heads % a->num_kv_heads != 0) {
    return fail(error,
                QUIRE_INVALID,
                "num_heads must be a positive multiple of num_kv_heads, got %d and %d",
                a->num_heads,
                a->num_kv_heads);
  }
  if (a->head_dim < 1 || a->batch < 0 || a->max_seqlen_q < 0 || a->max_seqlen_k < 0) {
    return fail(error,
                QUIRE_INVALID,
                "negative size: head_dim %d, batch %d, lengths %d and %d",
                a->head_dim,
                a->batch,
                a->max_seqlen_q,
                a->max_seqlen_k);
  }
  if (a->block_table != nullptr && (a->seqused_k == nullptr || a->block_size < 1)) {
    return fail(error, QUIRE_INVALID, "paged keys need seqused_k and a positive block_size");
  }
  if (a->cu_seqlens_k != nullptr && (a->cu_seqlens_q == nullptr || a->block_table != nullptr)) {
    return fail(error, QUIRE_INVALID, "cu_seqlens_k needs cu_seqlens_q and no block_table");
  }
  if (a->cu_seqlens_q != nullptr && a->cu_seqlens_k == nullptr && a->block_table == nullptr) {
    return fail(error, QUIRE_INVALID, "cu_seqlens_q needs cu_seqlens_k or a block_table");
  }
  return QUIRE_OK;
}

}  // namespace

QUIRE_EXPORT int32_t quire_attention_version(void) { return QUIRE_ATTENTION_VERSION; }
QUIRE_EXPORT int32_t quire_attention_num_kernels(void) { return kNumKernels; }
QUIRE_EXPORT const QuireAttentionKernel* quire_attention_kernel(int32_t index) {
  return index >= 0 && index < kNumKernels ? &kKernels[index] : nullptr;
}

QUIRE_EXPORT const QuireAttentionKernel* quire_attention_select(const QuireAttentionArgs* args,
                                                                QuireAttentionError* error) {
  if (validate(args, error) != QUIRE_OK) return nullptr;
  const QuireAttentionKernel* best = nullptr;
  char reasons[200] = "";
  size_t used = 0;
  for (const QuireAttentionKernel& kernel : kKernels) {
    const char* reason = "";
    if (!std::isfinite(kernel.cost(args))) continue;
    if (kernel.supports(args, &reason)) {
      if (best == nullptr || kernel.cost(args) < best->cost(args)) best = &kernel;
    } else if (used < sizeof(reasons)) {
      used +=
          std::snprintf(reasons + used, sizeof(reasons) - used, "%s: %s; ", kernel.name, reason);
    }
  }
  if (best == nullptr) fail(error, QUIRE_UNSUPPORTED, "no attention kernel: %s", reasons);
  return best;
}

QUIRE_EXPORT int quire_attention_forward(const QuireAttentionArgs* args,
                                         QuireAttentionError* error) {
  const QuireAttentionKernel* kernel = quire_attention_select(args, error);
  if (kernel == nullptr) return error != nullptr ? error->code : QUIRE_UNSUPPORTED;
  const int64_t needed = kernel->workspace_bytes(args);
  if (needed > args->workspace_bytes) {
    return fail(error,
                QUIRE_INVALID,
                "%s needs %lld bytes of workspace, got %lld",
                kernel->name,
                static_cast<long long>(needed),
                static_cast<long long>(args->workspace_bytes));
  }
  return kernel->run(args, error);
}

QUIRE_EXPORT int64_t quire_attention_backward_workspace_bytes(const QuireAttentionArgs* args,
                                                              const QuireAttentionGrad* grad) {
  return sm80::backward_workspace_bytes(*args, *grad);
}

QUIRE_EXPORT int quire_attention_backward(const QuireAttentionArgs* args,
                                          const QuireAttentionGrad* grad,
                                          QuireAttentionError* error) {
  const int code = validate(args, error);
  if (code != QUIRE_OK) return code;
  const char* reason;
  const sm80::BackwardKernel* kernel = sm80::find_backward(*args, &reason);
  if (kernel == nullptr) return fail(error, QUIRE_UNSUPPORTED, "%s", reason);
  return sm80::run_backward(*args, *grad, *kernel, error);
}

QUIRE_EXPORT int64_t
quire_attention_standard_backward_workspace_bytes(const QuireAttentionArgs* args) {
  return standard_backward_workspace_bytes(*args);
}
QUIRE_EXPORT int quire_attention_standard_backward(const QuireAttentionArgs* args,
                                                   const QuireAttentionGrad* grad,
                                                   QuireAttentionError* error) {
  const int code = validate(args, error);
  if (code != QUIRE_OK) return code;
  const char* reason = standard_unsupported(*args);
  if (reason != nullptr) return fail(error, QUIRE_UNSUPPORTED, "standard backward: %s", reason);
  return run_standard_backward(*args, *grad, error);
}

QUIRE_EXPORT int quire_rope_write(const QuireRopeWriteArgs* args, QuireAttentionError* error) {
  const int code = validate_rope_write(*args, error);
  return code != QUIRE_OK ? code : run_rope_write(*args, error);
}

}  // namespace quire::cuda
