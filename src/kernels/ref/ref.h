// The reference backend: every op once more, slow and obvious, accumulating in double on the
// calling thread. It is the definition that the others are tested against. The matrix ops are in
// ref_linear.cc.
#pragma once

#include "kernels/ops.h"

namespace quire::ref {

#define QUIRE_DECLARE_OP(op, Args) void op(const ExecContext& exec, const Args& args);
QUIRE_OPS(QUIRE_DECLARE_OP)
#undef QUIRE_DECLARE_OP

}  // namespace quire::ref
