// Attention with its scores and weights in memory, for comparison (Fusion::kAttention off).
#pragma once

#include "model/layers.h"

namespace quire {

// Scores, softmax and values, each as an op of its own, with the bits of the op `attention`. The
// scores of a step are H * T * kv_len floats: as many tokens at a time as
// ForwardContext::score_bytes hold, at least one, whose H rows may be as long as the model's
// context.
void standard_attention(Step& f, const AttentionArgs& args);

}  // namespace quire
