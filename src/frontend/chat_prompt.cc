#include "frontend/chat_prompt.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/mutants.h"
#include "frontend/utf8.h"

namespace quire {
namespace {

// U+F8FF U+E6D5 U+F8FF: private-use characters that no template emits.
constexpr std::string_view kMark = "\xEF\xA3\xBF\xEE\x9B\x95\xEF\xA3\xBF";

void erase_all(std::string& text, std::string_view what) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos;) text.erase(at, what.size());
}

// Puts a mark after the first byte-complete character of each special token inside `text`.
void mark_special_tokens(std::string& text, const std::vector<std::string>& special_tokens) {
  erase_all(text, kMark);
  for (const std::string& token : special_tokens) {
    if (token.empty()) continue;
    size_t first = 1;
    while (first < token.size() && (token[first] & 0xC0) == 0x80) ++first;
    for (size_t at = 0; (at = text.find(token, at)) != std::string::npos;) {
      text.insert(at + first, kMark);
      at += first + kMark.size();
    }
  }
}

// Every string value below `node`, whatever the message's shape (content, parts, tool calls).
void mark_strings(Json& node, const std::vector<std::string>& special_tokens) {
  if (node.is_string()) {
    std::string text = node.get<std::string>();
    mark_special_tokens(text, special_tokens);
    node = std::move(text);
  } else if (node.is_structured()) {
    for (Json& child : node) mark_strings(child, special_tokens);
  }
}

Status check_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) {
    return invalid_argument(
        "messages must be a non-empty array of {\"role\", \"content\"} objects");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object() || !messages[i].contains("role") ||
        !messages[i]["role"].is_string()) {
      return invalid_argument("messages[" + std::to_string(i) +
                              "] must be an object with a string \"role\"");
    }
  }
  return {};
}

}  // namespace

Result<std::string> to_messages_json(const std::vector<ChatMessage>& messages) {
  Json json = Json::array();
  for (const ChatMessage& message : messages) {
    QUIRE_RETURN_IF_ERROR(check_utf8(message.role, "the role of a message"));
    QUIRE_RETURN_IF_ERROR(check_utf8(message.content, "the " + message.role + " message"));
    json.push_back({{"role", message.role}, {"content", message.content}});
  }
  return dump_json(json);
}

Result<std::string> render_chat(const ChatTemplate& chat_template,
                                const ChatPrompt& prompt,
                                const TemplateTokens& tokens,
                                const std::vector<std::string>& special_tokens) {
  Json context = Json::object();
  if (!prompt.template_kwargs_json.empty()) {
    QUIRE_ASSIGN_OR_RETURN(context, parse_json_document(prompt.template_kwargs_json));
    if (!context.is_object()) {
      return invalid_argument("chat_template_kwargs must be a JSON object");
    }
  }
  std::string messages_json = prompt.messages_json;
  if (!prompt.messages.empty()) {
    QUIRE_ASSIGN_OR_RETURN(messages_json, to_messages_json(prompt.messages));
  }
  QUIRE_ASSIGN_OR_RETURN(Json messages, parse_json_document(messages_json));
  QUIRE_RETURN_IF_ERROR(check_messages(messages));
  mark_strings(messages, special_tokens);
  context["messages"] = std::move(messages);
  if (!prompt.tools_json.empty()) {
    QUIRE_ASSIGN_OR_RETURN(Json tools, parse_json_document(prompt.tools_json));
    mark_strings(tools, special_tokens);
    context["tools"] = std::move(tools);
  }
  context["add_generation_prompt"] =
      prompt.add_generation_prompt && !mutant("frontend_no_generation_prompt");
  context["bos_token"] = tokens.bos;
  context["eos_token"] = tokens.eos;
  context["pad_token"] = tokens.pad;
  context["unk_token"] = tokens.unk;
  return chat_template.render(dump_json(context));
}

Result<std::vector<TokenId>> encode_rendered(const Tokenizer& tokenizer,
                                             std::string_view rendered) {
  std::vector<TokenId> ids;
  while (true) {
    const size_t mark = rendered.find(kMark);
    const std::string_view piece = rendered.substr(0, mark);
    if (!piece.empty()) {
      QUIRE_ASSIGN_OR_RETURN(
          std::vector<TokenId> part,
          tokenizer.encode(piece, {.add_special_tokens = false, .parse_special_tokens = true}));
      ids.insert(ids.end(), part.begin(), part.end());
    }
    if (mark == std::string_view::npos) return ids;
    rendered.remove_prefix(mark + kMark.size());
  }
}

}  // namespace quire
