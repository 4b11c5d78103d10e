// How our weights are called in checkpoints, as data: "{}" stands for the layer number, and
// ".weight" or ".bias" follows.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace quire {

struct TensorName {
  const char* name;   // ours
  const char* group;  // in the summary of `quire info`
  const char* hugging_face;
  const char* gguf;  // null: not in GGUF files
};

inline constexpr TensorName kDecoderNames[] = {
    {"embedding", "embedding", "model.embed_tokens", "token_embd"},
    {"final_norm", "norms", "model.norm", "output_norm"},
    {"lm_head", "lm_head", "lm_head", "output"},
    {"attn_norm", "norms", "model.layers.{}.input_layernorm", "blk.{}.attn_norm"},
    {"q", "attention", "model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"},
    {"k", "attention", "model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"},
    {"v", "attention", "model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"},
    {"o", "attention", "model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"},
    {"q_norm", "norms", "model.layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"},
    {"k_norm", "norms", "model.layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm"},
    {"mlp_norm", "norms", "model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"},
    {"gate", "mlp", "model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"},
    {"up", "mlp", "model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"},
    {"down", "mlp", "model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"},
};

inline constexpr TensorName kOptNames[] = {
    {"embedding", "embedding", "model.decoder.embed_tokens", nullptr},
    {"positions", "embedding", "model.decoder.embed_positions", nullptr},
    {"project_in", "embedding", "model.decoder.project_in", nullptr},
    {"project_out", "lm_head", "model.decoder.project_out", nullptr},
    {"final_norm", "norms", "model.decoder.final_layer_norm", nullptr},
    {"lm_head", "lm_head", "lm_head", nullptr},
    {"attn_norm", "norms", "model.decoder.layers.{}.self_attn_layer_norm", nullptr},
    {"q", "attention", "model.decoder.layers.{}.self_attn.q_proj", nullptr},
    {"k", "attention", "model.decoder.layers.{}.self_attn.k_proj", nullptr},
    {"v", "attention", "model.decoder.layers.{}.self_attn.v_proj", nullptr},
    {"o", "attention", "model.decoder.layers.{}.self_attn.out_proj", nullptr},
    {"mlp_norm", "norms", "model.decoder.layers.{}.final_layer_norm", nullptr},
    {"fc1", "mlp", "model.decoder.layers.{}.fc1", nullptr},
    {"fc2", "mlp", "model.decoder.layers.{}.fc2", nullptr},
};

enum class CheckpointFormat { kGguf, kSafetensors };

// The checkpoint's name of our `name` in layer `layer` (ignored by names without "{}"), followed by
// `suffix`: ".weight", ".bias".
std::string checkpoint_name(std::span<const TensorName> names,
                            CheckpointFormat format,
                            std::string_view name,
                            int layer,
                            const char* suffix);
// The group of a checkpoint's tensor; "other" when the architecture does not use it.
const char* tensor_group(std::span<const TensorName> names,
                         CheckpointFormat format,
                         std::string_view tensor);

}  // namespace quire
