#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "model/config_reader.h"

namespace quire {
namespace {

// Typed reads of "<architecture>.<key>"; the first that is missing or out of range is remembered.
class Fields {
 public:
  Fields(const GgufMetadata& metadata, std::string prefix)
      : metadata_(metadata), prefix_(std::move(prefix)) {}

  int integer(const std::string& key, std::optional<int> or_else = std::nullopt) {
    const GgufValue* value = metadata_.find(prefix_ + key);
    if (value == nullptr) return absent(key, or_else);
    // Some writers give one number per layer; all must agree.
    if (const auto* list = std::get_if<std::vector<int64_t>>(&value->value)) {
      if (list->empty() || std::any_of(list->begin(), list->end(), [&](int64_t item) {
            return item != list->front();
          })) {
        fail(unsupported("metadata \"" + prefix_ + key + "\" differs between layers"));
        return 0;
      }
      return checked(key, list->front());
    }
    if (const auto* number = std::get_if<int64_t>(&value->value)) return checked(key, *number);
    fail(data_loss("metadata \"" + prefix_ + key + "\" is not an integer"));
    return 0;
  }

  double number(const std::string& key, std::optional<double> or_else = std::nullopt) {
    if (metadata_.find(prefix_ + key) == nullptr) return absent(key, or_else);
    const std::optional<double> value = metadata_.number(prefix_ + key);
    if (!value) fail(data_loss("metadata \"" + prefix_ + key + "\" is not a number"));
    return value.value_or(0.0);
  }

  std::string string(const std::string& key, const std::string& or_else) {
    const std::string* value = metadata_.string(prefix_ + key);
    return value == nullptr ? or_else : *value;
  }

  const Status& status() const { return status_; }

 private:
  int checked(const std::string& key, int64_t value) {
    if (value >= 0 && value <= INT32_MAX) return static_cast<int>(value);
    fail(data_loss("metadata \"" + prefix_ + key + "\" is " + std::to_string(value)));
    return 0;
  }
  template <class T>
  T absent(const std::string& key, const std::optional<T>& or_else) {
    if (or_else) return *or_else;
    fail(data_loss("metadata \"" + prefix_ + key + "\" is missing"));
    return T();
  }
  void fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  const GgufMetadata& metadata_;
  std::string prefix_;
  Status status_;
};

Status read_frequency_factors(const GgufFile& file, RopeConfig& rope) {
  const TensorInfo* tensor = file.checkpoint.find("rope_freqs.weight");
  if (tensor == nullptr) return Status();
  if (tensor->dtype != DType::kF32 || tensor->shape.size() != 1 || tensor->shape[0] > kMaxHeadDim) {
    return data_loss("tensor rope_freqs.weight has type " +
                     std::string(dtype_info(tensor->dtype).name) + " and shape " +
                     shape_to_string(tensor->shape) + "; wanted f32 [" +
                     std::to_string(rope.rotary_dim / 2) + "]");
  }
  std::vector<float> values(static_cast<size_t>(tensor->shape[0]));
  QUIRE_RETURN_IF_ERROR(file.checkpoint.read(*tensor, 0, tensor->bytes, values.data()));
  rope.frequency_factors.assign(values.begin(), values.end());
  return Status();
}

Status read_rope(const GgufFile& file, Fields& fields, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.number("rope.freq_base", 10000.0);
  rope.rotary_dim = fields.integer("rope.dimension_count", config.head_dim);
  const std::string type = fields.string("rope.scaling.type", "none");
  rope.factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0));
  if (type == "none") {
    rope.scaling = RopeScaling::kNone;
  } else if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.original_max_position =
        fields.integer("rope.scaling.original_context_length", config.max_position);
    rope.beta_fast = fields.number("rope.scaling.yarn_beta_fast", 32.0);
    rope.beta_slow = fields.number("rope.scaling.yarn_beta_slow", 1.0);
    // The file's factor multiplies the formula's.
    const double extra = fields.number("rope.scaling.attn_factor", 1.0);
    if (extra != 1.0) {
      rope.attention_factor = extra * (rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1);
    }
    if (rope.original_max_position < 1) {
      return data_loss("metadata \"rope.scaling.original_context_length\" is 0");
    }
  } else {
    return unsupported("rope scaling \"" + type +
                       "\"; supported in GGUF files: none, linear, yarn");
  }
  return read_frequency_factors(file, rope);
}

Status read_shape(const GgufFile& file, Fields& fields, ModelConfig& config) {
  config.num_layers = fields.integer("block_count");
  config.hidden_size = fields.integer("embedding_length");
  config.intermediate_size = fields.integer("feed_forward_length");
  config.num_heads = fields.integer("attention.head_count");
  config.num_kv_heads = fields.integer("attention.head_count_kv", config.num_heads);
  config.max_position = fields.integer("context_length");
  config.norm_eps = fields.number("attention.layer_norm_rms_epsilon");
  config.sliding_window = fields.integer("attention.sliding_window", 0);
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (config.num_heads < 1) return data_loss("metadata \"attention.head_count\" is 0");
  config.head_dim = fields.integer("attention.key_length", config.hidden_size / config.num_heads);
  const int value_dim = fields.integer("attention.value_length", config.head_dim);
  if (value_dim != config.head_dim) {
    return unsupported("keys of " + std::to_string(config.head_dim) + " and values of " +
                       std::to_string(value_dim) + " dimensions; they must be equal");
  }
  if (const int experts = fields.integer("expert_count", 0); experts > 0) {
    return unsupported("a mixture of " + std::to_string(experts) +
                       " experts; only dense models are supported");
  }
  const Checkpoint& checkpoint = file.checkpoint;
  config.tie_embeddings = checkpoint.find("output.weight") == nullptr;
  config.attention_bias = checkpoint.find("blk.0.attn_q.bias") != nullptr;
  config.mlp_bias = checkpoint.find("blk.0.ffn_up.bias") != nullptr;
  const TensorInfo* embedding = checkpoint.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return not_found("the file lacks the matrix token_embd.weight");
  }
  if (embedding->shape[0] > kMaxVocabSize) {
    return unsupported("a vocabulary of " + std::to_string(embedding->shape[0]) +
                       "; the limit is " + std::to_string(kMaxVocabSize));
  }
  config.vocab_size = static_cast<int>(embedding->shape[0]);
  const int stated = fields.integer("vocab_size", config.vocab_size);
  if (stated != config.vocab_size) {
    return data_loss("the vocabulary has " + std::to_string(stated) +
                     " tokens, but token_embd.weight has " + std::to_string(config.vocab_size) +
                     " rows");
  }
  return fields.status();
}

std::optional<int32_t> token_id(const GgufMetadata& metadata, const std::string& key) {
  const std::optional<int64_t> id = metadata.integer(key);
  // Writers say "none" with -1 or 2^32 - 1.
  if (!id || *id < 0 || *id > INT32_MAX) return std::nullopt;
  return static_cast<int32_t>(*id);
}

void read_special_tokens(const GgufMetadata& metadata, ModelConfig& config) {
  config.bos_token_id = token_id(metadata, "tokenizer.ggml.bos_token_id").value_or(-1);
  for (const char* kind : {"eos", "eot", "eom"}) {
    const auto id = token_id(metadata, std::string("tokenizer.ggml.") + kind + "_token_id");
    auto& ids = config.eos_token_ids;
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
}

}  // namespace

Result<ParsedConfig> config_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata;
  const std::string* name = metadata.string("general.architecture");
  if (name == nullptr) return data_loss("metadata \"general.architecture\" is missing");
  ParsedConfig parsed;
  QUIRE_ASSIGN_OR_RETURN(parsed.architecture, find_gguf_architecture(*name));
  ModelConfig& config = parsed.config;
  config.architecture = parsed.architecture->name;
  if (const std::string* text = metadata.string("general.name")) config.name = *text;
  if (const std::string* text = metadata.string("general.license")) config.licence = *text;
  Fields fields(metadata, *name + ".");
  QUIRE_RETURN_IF_ERROR(read_shape(file, fields, config));
  QUIRE_RETURN_IF_ERROR(read_rope(file, fields, config));
  QUIRE_RETURN_IF_ERROR(fields.status());
  read_special_tokens(metadata, config);
  QUIRE_RETURN_IF_ERROR(validate_config(config));
  if (parsed.architecture->gguf_interleaved_rope && config.rope.rotary_dim != config.head_dim) {
    return unsupported("rotary embedding of " + std::to_string(config.rope.rotary_dim) +
                       " of each head's " + std::to_string(config.head_dim) + " dimensions in a " +
                       *name + " file");
  }
  return parsed;
}

Result<GgufTokenizerSpec> tokenizer_from_gguf(const GgufMetadata& metadata, int vocab_size) {
  GgufTokenizerSpec spec;
  const std::string* model = metadata.string("tokenizer.ggml.model");
  const auto* tokens = metadata.array<std::string>("tokenizer.ggml.tokens");
  if (model == nullptr || tokens == nullptr) {
    return data_loss("metadata \"tokenizer.ggml.model\" or \"tokenizer.ggml.tokens\" is missing");
  }
  spec.model = *model;
  spec.tokens = *tokens;
  if (static_cast<int64_t>(tokens->size()) > vocab_size) {
    return data_loss("the tokenizer has " + std::to_string(tokens->size()) +
                     " tokens, but the embedding has only " + std::to_string(vocab_size) + " rows");
  }
  if (const std::string* pre = metadata.string("tokenizer.ggml.pre")) spec.pre = *pre;
  if (const auto* merges = metadata.array<std::string>("tokenizer.ggml.merges")) {
    spec.merges = *merges;
  }
  if (const auto* scores = metadata.array<float>("tokenizer.ggml.scores")) spec.scores = *scores;
  if (const auto* types = metadata.array<int64_t>("tokenizer.ggml.token_type")) {
    spec.token_types.assign(types->begin(), types->end());
  }
  for (auto [name, count] : {std::pair("scores", spec.scores.size()),
                             std::pair("token_type", spec.token_types.size())}) {
    if (count != 0 && count != spec.tokens.size()) {
      return data_loss(std::string("tokenizer.ggml.") + name + " has " + std::to_string(count) +
                       " entries for " + std::to_string(spec.tokens.size()) + " tokens");
    }
  }
  auto special = [&](const char* kind) -> std::optional<int32_t> {
    auto id = token_id(metadata, std::string("tokenizer.ggml.") + kind + "_token_id");
    return id && static_cast<size_t>(*id) < spec.tokens.size() ? id : std::nullopt;
  };
  spec.bos = special("bos");
  spec.eos = special("eos");
  spec.unk = special("unknown");
  spec.pad = special("padding");
  spec.add_bos = metadata.boolean("tokenizer.ggml.add_bos_token");
  spec.add_eos = metadata.boolean("tokenizer.ggml.add_eos_token");
  spec.add_space_prefix = metadata.boolean("tokenizer.ggml.add_space_prefix");
  return spec;
}

}  // namespace quire
