// A Hugging Face folder with a Llama of random bf16 weights, large enough that its bytes count.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace quire {

struct SyntheticShape {
  int64_t layers = 8, hidden = 512, intermediate = 1536, heads = 8, kv_heads = 4, vocab = 8192;
  int64_t context = 2048;
};

// `tokenizer_from`: a folder whose tokenizer files it gets.
inline void write_synthetic_model(const std::filesystem::path& folder,
                                  const std::filesystem::path& tokenizer_from,
                                  const SyntheticShape& s = {}) {
  using Json = nlohmann::ordered_json;
  namespace fs = std::filesystem;
  fs::create_directories(folder);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(tokenizer_from / name, folder / name);
  }
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"bos_token_id", 0},
                       {"eos_token_id", 1},
                       {"hidden_size", s.hidden},
                       {"intermediate_size", s.intermediate},
                       {"num_hidden_layers", s.layers},
                       {"num_attention_heads", s.heads},
                       {"num_key_value_heads", s.kv_heads},
                       {"vocab_size", s.vocab},
                       {"max_position_embeddings", s.context},
                       {"rope_theta", 10000.0},
                       {"rms_norm_eps", 1e-5},
                       {"hidden_act", "silu"},
                       {"tie_word_embeddings", false},
                       {"torch_dtype", "bfloat16"},
                       {"head_dim", s.hidden / s.heads}};
  std::ofstream(folder / "config.json") << config.dump(2);

  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors = {
      {"model.embed_tokens.weight", {s.vocab, s.hidden}},
      {"model.norm.weight", {s.hidden}},
      {"lm_head.weight", {s.vocab, s.hidden}}};
  const int64_t kv = s.hidden / s.heads * s.kv_heads;
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    tensors.push_back({layer + "input_layernorm.weight", {s.hidden}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {s.hidden}});
    tensors.push_back({layer + "self_attn.q_proj.weight", {s.hidden, s.hidden}});
    tensors.push_back({layer + "self_attn.k_proj.weight", {kv, s.hidden}});
    tensors.push_back({layer + "self_attn.v_proj.weight", {kv, s.hidden}});
    tensors.push_back({layer + "self_attn.o_proj.weight", {s.hidden, s.hidden}});
    tensors.push_back({layer + "mlp.gate_proj.weight", {s.intermediate, s.hidden}});
    tensors.push_back({layer + "mlp.up_proj.weight", {s.intermediate, s.hidden}});
    tensors.push_back({layer + "mlp.down_proj.weight", {s.hidden, s.intermediate}});
  }
  Json header = Json::object();
  int64_t offset = 0;
  for (const auto& [name, shape] : tensors) {
    int64_t bytes = 2;
    for (const int64_t dim : shape) bytes *= dim;
    header[name] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  const std::string text = header.dump();
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const uint64_t size = text.size();
  file.write(reinterpret_cast<const char*>(&size), 8);
  file << text;
  std::vector<uint16_t> values(1 << 16);
  uint64_t random = 1;
  for (int64_t left = offset / 2; left > 0; left -= static_cast<int64_t>(values.size())) {
    for (uint16_t& value : values) {  // of either sign, between 2^-6 and 2^-5
      random = mix64(random);
      value = static_cast<uint16_t>((random & 0x807f) | 0x3c80);
    }
    const auto count = std::min(left, static_cast<int64_t>(values.size()));
    file.write(reinterpret_cast<const char*>(values.data()), count * 2);
  }
}

}  // namespace quire
