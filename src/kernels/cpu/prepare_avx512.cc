// Quantisation of level "avx512", alone and fused with what comes before it.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/gemm_common.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/target_loops.h"
#include "tensor/half.h"

namespace quire::cpu {
namespace {
// clang-format off: each uses those above it
#include "kernels/cpu/kv_types.inl"
#include "kernels/cpu/simd_avx512.inl"
#include "kernels/cpu/common.inl"
#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/rows.inl"
#include "kernels/cpu/codes_madd.inl"
#include "kernels/cpu/prepare.inl"
// clang-format on
}  // namespace
}  // namespace quire::cpu

#define QUIRE_LEVEL avx512
#include "kernels/cpu/prepare_ops.inl"
