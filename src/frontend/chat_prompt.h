// A chat request as the chat template sees it, and the way from its text to tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "frontend/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace quire {

struct ChatMessage {
  std::string role, content;
};

// The array [{"role", "content"}, ...]. Text that is not UTF-8 is refused: JSON cannot hold it.
Result<std::string> to_messages_json(const std::vector<ChatMessage>& messages);

struct ChatPrompt {
  std::vector<ChatMessage> messages;  // plain turns; or, when empty,
  std::string messages_json;          // array of {"role", "content", ...}, as in OpenAI's API
  std::string tools_json;             // array, or empty
  std::string template_kwargs_json;   // object of extra template variables, or empty
  bool add_generation_prompt = true;
};

// The token strings that templates name.
struct TemplateTokens {
  std::string bos, eos, pad, unk;
};

// Special tokens ("<|im_end|>") that stand inside a message are the user's text, not structure:
// rendering marks them, and tokenising splits at the marks, so that they are encoded as the
// characters they are.
Result<std::string> render_chat(const ChatTemplate& chat_template,
                                const ChatPrompt& prompt,
                                const TemplateTokens& tokens,
                                const std::vector<std::string>& special_tokens);
Result<std::vector<TokenId>> encode_rendered(const Tokenizer& tokenizer, std::string_view rendered);

}  // namespace quire
