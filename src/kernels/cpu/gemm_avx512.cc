// Matrix ops for AVX-512 F, BW, DQ, VL without byte dot products: the kernels of AVX2 on 512-bit
// vectors, with larger tiles: integers 8 rows by 32 columns, floats 12 by 32.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/gemm_common.h"
#include "kernels/cpu/isa.h"
#include "kernels/formats/records.h"

namespace quire::cpu::avx512 {
namespace {

constexpr int kFloatRows = 12;
constexpr int kIntRows = 8;

// clang-format off: each uses those above it
#include "kernels/cpu/gemm_rows.inl"
#include "kernels/cpu/vec_avx512.inl"
#include "kernels/cpu/gemm_groups.inl"
#include "kernels/cpu/gemm_float.inl"
#include "kernels/cpu/gemm_madd.inl"
#include "kernels/cpu/gemm_dispatch.inl"
#include "kernels/cpu/gemm_driver.inl"
// clang-format on

}  // namespace

void linear(const ExecContext& exec, const LinearArgs& args) { run_linear(exec, args); }
void embedding(const ExecContext& exec, const EmbeddingArgs& args) { run_embedding(exec, args); }

}  // namespace quire::cpu::avx512
