// A tokenizer as GGUF metadata describes it: what model/ reads and text/ builds from, neither
// knowing the other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace quire {

// Metadata keys tokenizer.ggml.*, already bounds-checked.
struct GgufTokenizerSpec {
  std::string model;                // "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
  std::string pre;                  // smollm, gpt-2, llama-bpe, qwen2, default, ...
  std::vector<std::string> tokens;  // index = token id
  std::vector<std::string> merges;  // "left right"; empty for model == "llama"
  std::vector<float> scores;        // for model == "llama"
  std::vector<int32_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::optional<int32_t> bos, eos, unk, pad;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

}  // namespace quire
