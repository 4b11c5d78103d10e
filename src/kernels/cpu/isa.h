// What each CPU level's units define, in a namespace of its own: the matrix ops in gemm_<level>.cc
// and prepare_<level>.cc, the others in isa_<level>.cc. tables.cc lists them. avx512_vnni has its
// own matrix ops and shares the others with avx512.
#pragma once

#include "base/mutants.h"
#include "kernels/ops.h"

namespace quire::cpu {

#define QUIRE_DECLARE_OP(op, Args) void op(const ExecContext& exec, const Args& args);
namespace generic {
QUIRE_OPS(QUIRE_DECLARE_OP)
}
namespace avx2 {
QUIRE_OPS(QUIRE_DECLARE_OP)
}
namespace avx512 {
QUIRE_OPS(QUIRE_DECLARE_OP)
}
namespace avx512_vnni {
QUIRE_MATRIX_OPS(QUIRE_DECLARE_OP)
}
#undef QUIRE_DECLARE_OP

}  // namespace quire::cpu
