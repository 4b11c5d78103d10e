#include "model/model_config.h"

#include <cmath>

namespace quire {
namespace {

constexpr double kMinRopeFactor = 0.001, kMaxRopeFactor = 1e6;

Status check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return Status();
  return unsupported(std::string(name) + " is " + std::to_string(value) +
                     "; supported: " + std::to_string(low) + " to " + std::to_string(high));
}

Status validate_rope(const RopeConfig& rope, int head_dim) {
  if (rope.rotary_dim < 0 || rope.rotary_dim > head_dim || rope.rotary_dim % 2 != 0) {
    return unsupported("rotary dimension is " + std::to_string(rope.rotary_dim) +
                       "; it must be even and at most the head dimension " +
                       std::to_string(head_dim));
  }
  if (rope.rotary_dim == 0) return Status();
  if (!(rope.theta > 1.0) || !std::isfinite(rope.theta)) {
    return unsupported("rope_theta is " + std::to_string(rope.theta) + "; it must be above 1");
  }
  if (!(rope.factor >= kMinRopeFactor && rope.factor <= kMaxRopeFactor)) {
    return unsupported("the rope scaling factor is " + std::to_string(rope.factor) +
                       "; supported: " + std::to_string(kMinRopeFactor) + " to " +
                       std::to_string(kMaxRopeFactor));
  }
  if (rope.scaling == RopeScaling::kYarn &&
      !(rope.beta_slow > 0.0 && rope.beta_fast >= rope.beta_slow &&
        std::isfinite(rope.beta_fast))) {
    return unsupported("yarn rope scaling needs beta_fast >= beta_slow > 0");
  }
  for (double value : {rope.attention_factor, rope.mscale, rope.mscale_all_dim}) {
    if (!(value >= 0.0) || !std::isfinite(value)) {
      return unsupported("yarn's attention_factor, mscale and mscale_all_dim must not be negative");
    }
  }
  const size_t num_factors = rope.frequency_factors.size();
  if (num_factors != 0 && num_factors != static_cast<size_t>(rope.rotary_dim / 2)) {
    return unsupported("rope_freqs has " + std::to_string(num_factors) + " values; wanted " +
                       std::to_string(rope.rotary_dim / 2));
  }
  for (double value : rope.frequency_factors) {
    if (!(value > 0.0) || !std::isfinite(value)) {
      return data_loss("rope_freqs holds " + std::to_string(value) + "; values must be above 0");
    }
  }
  if (rope.scaling == RopeScaling::kLlama3 &&
      !(rope.low_freq_factor > 0.0 && rope.high_freq_factor > rope.low_freq_factor &&
        std::isfinite(rope.high_freq_factor))) {
    return unsupported("llama3 rope scaling needs high_freq_factor > low_freq_factor > 0");
  }
  if (rope.scaling == RopeScaling::kLongRope) {
    return unsupported(
        "rope scaling \"longrope\"; supported: default, linear, dynamic, yarn, llama3");
  }
  return Status();
}

}  // namespace

Status validate_config(const ModelConfig& c) {
  QUIRE_RETURN_IF_ERROR(check_range("the number of layers", c.num_layers, 1, kMaxLayers));
  QUIRE_RETURN_IF_ERROR(check_range("the hidden size", c.hidden_size, 1, kMaxHiddenSize));
  QUIRE_RETURN_IF_ERROR(
      check_range("the intermediate size", c.intermediate_size, 1, kMaxIntermediateSize));
  QUIRE_RETURN_IF_ERROR(check_range("the number of attention heads", c.num_heads, 1, kMaxHeads));
  QUIRE_RETURN_IF_ERROR(
      check_range("the number of key-value heads", c.num_kv_heads, 1, c.num_heads));
  QUIRE_RETURN_IF_ERROR(check_range("the head dimension", c.head_dim, 1, kMaxHeadDim));
  QUIRE_RETURN_IF_ERROR(check_range("the vocabulary size", c.vocab_size, 1, kMaxVocabSize));
  QUIRE_RETURN_IF_ERROR(check_range("the context length", c.max_position, 1, kMaxContext));
  QUIRE_RETURN_IF_ERROR(check_range("the sliding window", c.sliding_window, 0, kMaxContext));
  if (c.num_heads % c.num_kv_heads != 0) {
    return unsupported(std::to_string(c.num_heads) + " attention heads are not a multiple of " +
                       std::to_string(c.num_kv_heads) + " key-value heads");
  }
  if (!(c.norm_eps >= 0.0) || c.norm_eps > 1.0) {
    return unsupported("the norm's epsilon is " + std::to_string(c.norm_eps) +
                       "; supported: 0 to 1");
  }
  for (int32_t id : c.eos_token_ids) {
    if (id < 0 || id >= c.vocab_size) {
      return unsupported("end token " + std::to_string(id) + " is outside the vocabulary of " +
                         std::to_string(c.vocab_size));
    }
  }
  return validate_rope(c.rope, c.head_dim);
}

}  // namespace quire
