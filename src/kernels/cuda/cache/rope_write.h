// Rotary position embedding and the write into the paged cache in one kernel.
#pragma once

#include "kernels/cuda/quire_attention.h"

namespace quire::cuda {

// QUIRE_OK, or the first limit that the arguments break.
int validate_rope_write(const QuireRopeWriteArgs& args, QuireAttentionError* error);
int run_rope_write(const QuireRopeWriteArgs& args, QuireAttentionError* error);

}  // namespace quire::cuda
