// The text half of a model: tokenizer, chat template and the token strings that templates name.
#pragma once

#include <cstdint>
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

// About what its tokenizer takes in memory once it is made, by the size of what it is made from.
int64_t tokenizer_bytes(const TokenizerSource& source);

// `chat_template_file`, when not empty, overrides the model's own template.
Result<TextModel> make_text_model(const ModelInfo& info,
                                  const std::string& chat_template_file = "");

}  // namespace quire
