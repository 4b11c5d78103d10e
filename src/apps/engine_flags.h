// The MODEL argument and the engine's flags, with vLLM's names, shared by every command that runs a
// model.
#pragma once

#include "apps/command.h"
#include "frontend/llm.h"

namespace quire {

void add_model_argument(CommandLine line, LlmConfig& config);
void add_engine_flags(CommandLine line, LlmConfig& config);

}  // namespace quire
