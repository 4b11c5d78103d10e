#include "model/arch/qwen.h"

#include "model/json_fields.h"

namespace quire {

Status configure_qwen(const JsonValue& json, ModelConfig& config) {
  JsonFields fields(json);
  // The window stands in the files of models that do not use it.
  const bool windowed = fields.boolean("use_sliding_window", false);
  const int window = fields.integer("sliding_window", json.find("sliding_window") ? 0 : 4096);
  config.sliding_window = windowed ? window : 0;
  config.first_window_layer = fields.integer("max_window_layers", 28);
  QUIRE_RETURN_IF_ERROR(fields.status());
  const JsonValue* types = json.get("layer_types");
  if (types == nullptr || config.sliding_window == 0) return Status();
  if (types->array() == nullptr ||
      types->array()->size() != static_cast<size_t>(config.num_layers)) {
    return data_loss("\"layer_types\" is not a list of " + std::to_string(config.num_layers));
  }
  config.first_window_layer = config.num_layers;
  for (int n = 0; n < config.num_layers; ++n) {
    const std::string* type = (*types->array())[static_cast<size_t>(n)].string();
    const bool full = type != nullptr && *type == "full_attention";
    if (!full && (type == nullptr || *type != "sliding_attention")) {
      return unsupported("a layer type other than full_attention and sliding_attention");
    }
    if (!full && config.first_window_layer == config.num_layers) config.first_window_layer = n;
    if (full && n > config.first_window_layer) {
      return unsupported("full attention in layer " + std::to_string(n) + " above layer " +
                         std::to_string(config.first_window_layer) +
                         " with a sliding window; only the lower layers may be full");
    }
  }
  return Status();
}

}  // namespace quire
