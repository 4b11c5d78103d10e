// A model by name or path -> a model in memory, with everything its files say about using it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/gguf_tokenizer_spec.h"
#include "base/status.h"
#include "model/model.h"
#include "model/tensor_names.h"

namespace quire {

// Tensors of one group ("embedding", "attention", "mlp", "norms", "lm_head", "other") and type.
struct TensorGroup {
  std::string group;
  DType type;
  int64_t num_tensors = 0, num_elements = 0, bytes = 0;  // bytes in the checkpoint
};

// The text of tokenizer.json, or what GGUF metadata says.
using TokenizerSource = std::variant<std::string, GgufTokenizerSpec>;

// The special tokens that chat templates refer to; absent where the files name none.
struct SpecialTokens {
  std::optional<std::string> bos, eos, pad, unk;
};

// Everything but the weights.
struct ModelInfo {
  std::filesystem::path path;
  CheckpointFormat format = CheckpointFormat::kGguf;
  ModelConfig config;
  GenerationDefaults generation;
  std::vector<TensorGroup> tensors;
  int64_t num_parameters = 0;
  int64_t checkpoint_bytes = 0;  // of all tensors
  TokenizerSource tokenizer;
  std::optional<std::string> chat_template;
  SpecialTokens special_tokens;
};

struct LoadedModel {
  std::unique_ptr<Model> model;
  ModelInfo info;
  int64_t weight_bytes = 0;  // packed, in memory
};

struct LoadOptions {
  int num_threads = 1;
  // (bytes done, bytes in all); called often, from one thread at a time.
  std::function<void(int64_t, int64_t)> progress;
  // > 0: positions beyond it will not be used; lowers config.max_position and the memory of the
  // rotary table.
  int max_positions = 0;
};

// A GGUF file (any file of a split model) or a Hugging Face folder.
Result<LoadedModel> load_model(const std::filesystem::path& path, const LoadOptions& options);
// Reads headers only.
Result<ModelInfo> inspect_model(const std::filesystem::path& path);

// Where models are looked for; filled from the environment once, by the caller's choice.
struct ModelSearch {
  std::filesystem::path quire_models;  // ${XDG_CACHE_HOME:-~/.cache}/quire/models
  std::filesystem::path hugging_face;  // ${HF_HUB_CACHE:-${HF_HOME:-~/.cache/huggingface}/hub}
  static ModelSearch from_environment();
};
// `name`: a path, the name of a model in quire_models, or org/name in the Hugging Face cache.
Result<std::filesystem::path> resolve_model(std::string_view name, const ModelSearch& search);
Result<std::filesystem::path> resolve_model(std::string_view name);

}  // namespace quire
