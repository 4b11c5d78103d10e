#include <algorithm>

#include "base/json.h"
#include "base/mutants.h"
#include "model/config_reader.h"
#include "model/json_fields.h"

namespace quire {
namespace {

struct ScalingName {
  const char* name;
  RopeScaling scaling;
};
constexpr ScalingName kScalings[] = {
    {"default", RopeScaling::kNone},
    {"linear", RopeScaling::kLinear},
    {"dynamic", RopeScaling::kDynamic},
    {"yarn", RopeScaling::kYarn},
    {"llama3", RopeScaling::kLlama3},
    {"longrope", RopeScaling::kLongRope},
};

Result<RopeScaling> scaling_by_name(const std::string& name) {
  for (const ScalingName& entry : kScalings) {
    if (name == entry.name) return entry.scaling;
  }
  return unsupported("rope scaling \"" + name +
                     "\"; supported: default, linear, dynamic, yarn, llama3");
}

// Older files hold rope_theta beside rope_scaling (null without scaling, "type" or "rope_type" in
// it); files of transformers 5 hold all of it in rope_parameters.
Status read_rope(const JsonValue& json, ModelConfig& config) {
  static const JsonValue kEmpty{JsonValue::Object()};
  const JsonValue* scaling = json.get("rope_parameters");
  if (scaling == nullptr) scaling = json.get("rope_scaling");
  if (scaling == nullptr) scaling = &kEmpty;
  if (scaling->object() == nullptr) return data_loss("the rope scaling is not a JSON object");
  JsonFields outer(json), fields(*scaling);
  RopeConfig& rope = config.rope;
  rope.theta = fields.number("rope_theta", outer.number("rope_theta", 10000.0));
  const double partial =
      fields.number("partial_rotary_factor", outer.number("partial_rotary_factor", 1.0));
  if (!(partial > 0.0 && partial <= 1.0)) {
    return unsupported("partial_rotary_factor is " + std::to_string(partial) +
                       "; it must be above 0 and at most 1");
  }
  rope.rotary_dim = static_cast<int>(config.head_dim * partial);
  const std::string type = fields.string("rope_type", fields.string("type", "default"));
  QUIRE_ASSIGN_OR_RETURN(rope.scaling, scaling_by_name(type));
  if (rope.scaling != RopeScaling::kNone && rope.scaling != RopeScaling::kYarn) {
    rope.factor = fields.number("factor");
  }
  rope.original_max_position =
      fields.integer("original_max_position_embeddings",
                     outer.integer("original_max_position_embeddings", config.max_position));
  if (rope.original_max_position < 1) {
    return unsupported("original_max_position_embeddings is " +
                       std::to_string(rope.original_max_position) + "; it must be above 0");
  }
  if (rope.scaling == RopeScaling::kYarn) {
    rope.factor = fields.number(
        "factor", static_cast<double>(config.max_position) / rope.original_max_position);
    rope.attention_factor = fields.number("attention_factor", 0.0);
    rope.mscale = fields.number("mscale", 0.0);
    rope.mscale_all_dim = fields.number("mscale_all_dim", 0.0);
    rope.beta_fast = fields.number("beta_fast", 32.0);
    rope.beta_slow = fields.number("beta_slow", 1.0);
    rope.truncate = fields.boolean("truncate", true);
  }
  if (rope.scaling == RopeScaling::kLlama3) {
    rope.low_freq_factor = fields.number("low_freq_factor");
    rope.high_freq_factor = fields.number("high_freq_factor");
  }
  QUIRE_RETURN_IF_ERROR(outer.status());
  return fields.status();
}

// The context that the scaling makes of the one the model was trained on, as vLLM derives it.
void extend_context(ModelConfig& config) {
  double context = config.max_position;
  if (config.rope.scaling == RopeScaling::kLinear) context *= config.rope.factor;
  if (config.rope.scaling == RopeScaling::kYarn) {
    context = std::max(context, config.rope.original_max_position * config.rope.factor);
  }
  if (context >= config.max_position && context <= kMaxContext) {
    config.max_position = static_cast<int>(context);
  }
}

Status read_shape(const JsonValue& json, ModelConfig& config) {
  JsonFields fields(json);
  config.num_layers = fields.integer("num_hidden_layers");
  config.hidden_size = fields.integer("hidden_size");
  config.num_heads = fields.integer("num_attention_heads");
  config.num_kv_heads = fields.integer("num_key_value_heads", config.num_heads);
  config.vocab_size = fields.integer("vocab_size");
  config.max_position = fields.integer("max_position_embeddings");
  config.bos_token_id = fields.integer("bos_token_id", -1);
  config.eos_token_ids = fields.token_ids("eos_token_id");
  if (mutant("model_config_one_end_token") && config.eos_token_ids.size() > 1) {
    config.eos_token_ids.resize(1);
  }
  config.norm_eps = fields.number("rms_norm_eps", 1e-6);
  config.tie_embeddings = fields.boolean("tie_word_embeddings", false);
  config.attention_bias = fields.boolean("attention_bias", false);
  config.mlp_bias = fields.boolean("mlp_bias", false);
  config.activation = fields.string("hidden_act", "silu");
  config.name = fields.string("_name_or_path", "");
  // Names differ in OPT, whose own reader sets it.
  config.intermediate_size = fields.integer("intermediate_size", 0);
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (!fields.has("head_dim") &&
      (config.num_heads < 1 || config.hidden_size % config.num_heads != 0)) {
    return unsupported("hidden_size " + std::to_string(config.hidden_size) +
                       " is not a multiple of num_attention_heads " +
                       std::to_string(config.num_heads) + ", and head_dim is not given");
  }
  config.head_dim =
      fields.integer("head_dim", config.num_heads < 1 ? 0 : config.hidden_size / config.num_heads);
  return fields.status();
}

}  // namespace

Result<ParsedConfig> config_from_json(const JsonValue& json) {
  if (json.object() == nullptr) return data_loss("not a JSON object");
  const JsonValue* names = json.get("architectures");
  if (names == nullptr || names->array() == nullptr || names->array()->empty() ||
      names->array()->front().string() == nullptr) {
    return data_loss("\"architectures\" does not name one");
  }
  ParsedConfig parsed;
  ModelConfig& config = parsed.config;
  config.architecture = *names->array()->front().string();
  QUIRE_ASSIGN_OR_RETURN(parsed.architecture, find_architecture(config.architecture));
  if (json.get("quantization_config") != nullptr) {
    return unsupported(
        "a checkpoint with \"quantization_config\"; use one in F32, F16 or BF16, or a GGUF file");
  }
  QUIRE_RETURN_IF_ERROR(read_shape(json, config));
  QUIRE_RETURN_IF_ERROR(read_rope(json, config));
  if (parsed.architecture->configure != nullptr) {
    QUIRE_RETURN_IF_ERROR(parsed.architecture->configure(json, config));
  }
  if (config.activation != parsed.architecture->activation) {
    return unsupported("activation \"" + config.activation + "\"; supported for " +
                       parsed.architecture->name + ": " + parsed.architecture->activation);
  }
  extend_context(config);
  QUIRE_RETURN_IF_ERROR(validate_config(config));
  return parsed;
}

Result<GenerationDefaults> generation_from_json(const JsonValue& json,
                                                std::vector<int32_t>* eos_token_ids) {
  if (json.object() == nullptr) return data_loss("not a JSON object");
  JsonFields fields(json);
  GenerationDefaults defaults;
  defaults.temperature = fields.number("temperature", -1.0);
  defaults.top_p = fields.number("top_p", -1.0);
  defaults.min_p = fields.number("min_p", -1.0);
  defaults.repetition_penalty = fields.number("repetition_penalty", -1.0);
  defaults.top_k = fields.integer("top_k", -1);
  defaults.max_new_tokens = fields.integer("max_new_tokens", -1);
  // transformers ignores the sampling fields of a file that asks for greedy decoding.
  if (fields.has("do_sample") && !fields.boolean("do_sample")) defaults.temperature = 0.0;
  std::vector<int32_t> ids = fields.token_ids("eos_token_id");
  QUIRE_RETURN_IF_ERROR(fields.status());
  if (!ids.empty()) *eos_token_ids = std::move(ids);
  return defaults;
}

}  // namespace quire
