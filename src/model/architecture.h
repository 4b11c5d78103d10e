// The list of architectures. Adding one: a file in model/arch/ that defines an Architecture, a line
// below, a line in architecture.cc, and a tiny checkpoint with golden logits (CONTRIBUTING.md).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "model/model_config.h"
#include "model/tensor_names.h"

namespace quire {

class DecoderModel;
class WeightLoader;

struct Architecture {
  const char* name;            // as in config.json, "architectures"
  const char* gguf_name;       // as in general.architecture; null: no GGUF files of it exist
  bool gguf_interleaved_rope;  // GGUF stores q and k rows for pairs (2i, 2i + 1)
  const char* activation;      // the only one supported
  std::span<const TensorName> tensor_names;
  // What config.json says beyond the keys all architectures share; may be null.
  Status (*configure)(const JsonValue& json, ModelConfig& config);
  std::unique_ptr<DecoderModel> (*make)(const ModelConfig& config, WeightLoader& weights);
};

extern const Architecture kLlama, kMistral, kQwen2, kQwen3, kOpt;

std::span<const Architecture* const> architectures();
// kUnsupported with the list of what is supported.
Result<const Architecture*> find_architecture(std::string_view name);
Result<const Architecture*> find_gguf_architecture(std::string_view gguf_name);

}  // namespace quire
