// config.json, generation_config.json and GGUF metadata -> ModelConfig.
#pragma once

#include <vector>

#include "base/gguf_tokenizer_spec.h"
#include "base/json.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/gguf.h"
#include "model/model_config.h"

namespace quire {

struct ParsedConfig {
  ModelConfig config;
  const Architecture* architecture = nullptr;
};

Result<ParsedConfig> config_from_json(const JsonValue& json);

// generation_config.json: sampling defaults and, where it names them, the set of end tokens.
Result<GenerationDefaults> generation_from_json(const JsonValue& json,
                                                std::vector<int32_t>* eos_token_ids);

// The checkpoint tells what the metadata does not: biases, tied embeddings, rope_freqs.
Result<ParsedConfig> config_from_gguf(const GgufFile& file);

Result<GgufTokenizerSpec> tokenizer_from_gguf(const GgufMetadata& metadata, int vocab_size);

}  // namespace quire
