// A model by name or path -> a model in memory, with everything its files say about using it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
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

// Weights of one group and type as they lie in memory, vectors among them as f32.
struct PackedGroup {
  std::string group;
  DType type;
  int64_t num_tensors = 0, bytes = 0;
};

struct ModelFiles;
struct LoadedModel;
struct LoadOptions;

// A model whose files are open and understood, before any weight is read: enough to know every byte
// it will take.
class OpenModel {
 public:
  OpenModel(OpenModel&&) noexcept;
  OpenModel& operator=(OpenModel&&) noexcept;
  ~OpenModel();

  ModelInfo& info();
  const ModelInfo& info() const;
  // For config() and workspace_bytes(): it has no weights, and no forward pass.
  const Model& outline() const { return *outline_; }
  std::span<const PackedGroup> weights() const { return weights_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  // Of the rotary table for positions up to `max_positions`; 0: all that the model has.
  int64_t rope_bytes(int max_positions) const;

 private:
  friend Result<OpenModel> open_model(const std::filesystem::path& path);
  friend Result<LoadedModel> load_model(OpenModel open, const LoadOptions& options);
  OpenModel();
  std::unique_ptr<ModelFiles> files_;
  std::unique_ptr<Model> outline_;
  std::vector<PackedGroup> weights_;
  int64_t weight_bytes_ = 0;
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

// A GGUF file (any file of a split model) or a Hugging Face folder. Reads headers only; says what
// is missing or wrong among the tensors.
Result<OpenModel> open_model(const std::filesystem::path& path);
Result<LoadedModel> load_model(OpenModel open, const LoadOptions& options);
Result<LoadedModel> load_model(const std::filesystem::path& path, const LoadOptions& options);
// Reads headers only; asks nothing of the tensors.
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
