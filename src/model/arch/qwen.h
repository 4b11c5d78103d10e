// What the configurations of Qwen2 and Qwen3 share.
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "model/model_config.h"

namespace quire {

// use_sliding_window, sliding_window, max_window_layers, layer_types.
Status configure_qwen(const JsonValue& json, ModelConfig& config);

}  // namespace quire
