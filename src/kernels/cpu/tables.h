// The op table of each CPU level; null where this build does not contain the level.
#pragma once

#include "kernels/ops.h"

namespace quire::cpu {

const OpTable* generic_table();
const OpTable* avx2_table();
const OpTable* avx512_table();
const OpTable* avx512_vnni_table();

}  // namespace quire::cpu
