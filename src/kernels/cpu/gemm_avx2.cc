// Matrix ops for AVX2, FMA, F16C: 256-bit vectors. The integer kernels are gemm_madd.inl: 4 rows by
// 16 columns, bound by 2 vector operations (vpmaddwd, vpaddd) per 16 products; the float kernels
// gemm_float.inl: 6 rows by 16 columns.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/gemm_common.h"
#include "kernels/cpu/isa.h"
#include "kernels/formats/records.h"

namespace quire::cpu::avx2 {
namespace {

constexpr int kFloatRows = 6;
constexpr int kIntRows = 4;

// clang-format off: each uses those above it
#include "kernels/cpu/gemm_rows.inl"
#include "kernels/cpu/vec_avx2.inl"
#include "kernels/cpu/gemm_groups.inl"
#include "kernels/cpu/gemm_float.inl"
#include "kernels/cpu/gemm_madd.inl"
#include "kernels/cpu/gemm_dispatch.inl"
#include "kernels/cpu/gemm_driver.inl"
// clang-format on

}  // namespace

void linear(const ExecContext& exec, const LinearArgs& args) { run_linear(exec, args); }
void embedding(const ExecContext& exec, const EmbeddingArgs& args) { run_embedding(exec, args); }

}  // namespace quire::cpu::avx2
