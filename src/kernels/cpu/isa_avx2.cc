// The ops of level "avx2" but for the matrix ops (gemm_avx2.cc). The bodies are .inl files shared
// by all levels, compiled here with this level's flags; only the exported ops have external
// linkage.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/attention.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/limits.h"
#include "kernels/cpu/target_loops.h"
#include "tensor/half.h"

namespace quire {
namespace {
#include "kernels/cpu/kv_types.inl"
//
#include "kernels/cpu/simd_avx2.inl"
//
#include "kernels/cpu/common.inl"
//
#include "kernels/cpu/attention_plan.inl"
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/kv_write.inl"
#include "kernels/cpu/limits.inl"
#include "kernels/cpu/topk.inl"
}  // namespace
}  // namespace quire

#define QUIRE_LEVEL avx2
#include "kernels/cpu/limits_ops.inl"
#include "kernels/cpu/ops.inl"
