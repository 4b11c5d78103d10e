// What a checkpoint says about its model, from config.json or GGUF metadata.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace quire {

enum class RopeScaling : uint8_t { kNone, kLinear, kDynamic, kYarn, kLlama3, kLongRope };

struct RopeConfig {
  double theta = 10000.0;
  int rotary_dim = 0;  // of each head; 0 = no rotary embedding (OPT)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;                         // yarn; 0 = the formula's default
  int original_max_position = 0;
  std::vector<double> frequency_factors;  // GGUF rope_freqs.weight: divides each inverse frequency
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  std::string name, licence;
  int num_layers = 0;
  int hidden_size = 0;        // E
  int intermediate_size = 0;  // I
  int num_heads = 0;          // H
  int num_kv_heads = 0;       // K
  int head_dim = 0;           // D
  int vocab_size = 0;         // V
  int max_position = 0;       // context length of training
  double norm_eps = 1e-5;
  RopeConfig rope;
  bool tie_embeddings = false;
  bool attention_bias = false;  // q, k, v (and o where the architecture has it)
  bool mlp_bias = false;
  int sliding_window = 0;  // 0: full attention
  // OPT
  bool norm_before = true;  // do_layer_norm_before
  bool final_norm = true;   // false: OPT with _remove_final_layer_norm or post-norm
  int embed_proj_dim = 0;   // word_embed_proj_dim where it differs from hidden_size
  std::string activation = "silu";

  std::vector<int32_t> eos_token_ids;  // the set of end tokens
  int32_t bos_token_id = -1;
};

// Sampling defaults of generation_config.json; a negative value means that the file does not say.
struct GenerationDefaults {
  double temperature = -1, top_p = -1, min_p = -1, repetition_penalty = -1;
  int top_k = -1, max_new_tokens = -1;
};

}  // namespace quire
