// The text half of a model: tokenizer, chat template and the token strings that templates name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "frontend/chat_prompt.h"
#include "model/loader.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace quire {

struct TextModel {
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  TemplateTokens template_tokens;
  std::vector<std::string> special_tokens;  // their texts
};

// `chat_template_file`, when not empty, overrides the model's own template.
Result<TextModel> make_text_model(const ModelInfo& info,
                                  const std::string& chat_template_file = "");

}  // namespace quire
