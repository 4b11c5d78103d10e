// Rotary position embedding: the table of cosines and sines that the rope op reads.
#pragma once

#include <vector>

#include "model/model_config.h"

namespace quire {

// Angle per position of each of the rotary_dim / 2 pairs, after scaling.
std::vector<double> rope_inverse_frequencies(const RopeConfig& rope);
// What cosines and sines are multiplied with (yarn; 1 otherwise).
double rope_attention_factor(const RopeConfig& rope);
// [max_position][rotary_dim]: rotary_dim/2 cosines, then as many sines; computed in double.
std::vector<float> rope_table(const RopeConfig& rope, int max_position, int num_threads);

}  // namespace quire
