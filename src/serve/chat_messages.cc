#include "serve/chat_messages.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace quire {

namespace {

// What a client sends back of an answer that it got, where it holds nothing.
bool may_be_left_out(const std::string& key, const Json& value) {
  static constexpr const char* kOfAnswers[] = {
      "refusal", "annotations", "audio", "function_call", "tool_calls", "tool_call_id"};
  return std::ranges::find(kOfAnswers, key) != std::end(kOfAnswers) &&
         (value.is_null() || (value.is_structured() && value.empty()));
}

// {"type": "text", "text": "..."}: nothing and *why when it is something else.
std::optional<std::string> text_of_part(const Json& part, std::string* why) {
  if (part.is_string()) return part.get<std::string>();
  const bool has_type = part.is_object() && part.contains("type") && part["type"].is_string();
  const std::string type = has_type ? part["type"].get<std::string>() : "";
  if (type == "text" && part.size() == 2 && part.contains("text") && part["text"].is_string()) {
    return part["text"].get<std::string>();
  }
  *why = has_type && type != "text"
             ? "has a part of type \"" + type.substr(0, 100) + "\", but this model reads text only"
             : "has a part that is not {\"type\": \"text\", \"text\": TEXT}";
  return std::nullopt;
}

// The content as one text; null stays null.
bool flatten_content(Json& message, std::string* why) {
  Json& content = message["content"];
  if (content.is_null() || content.is_string()) return true;
  if (!content.is_array()) {
    *why = "must be a text or an array of parts";
    return false;
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::optional<std::string> part = text_of_part(content[i], why);
    if (!part) return false;
    text += (i == 0 ? "" : "\n") + *part;
  }
  content = std::move(text);
  return true;
}

// One message as templates read it; nothing after fields.fail().
std::optional<Json> read_message(const Json& in, const std::string& where, FieldReader& fields) {
  const auto fail = [&](const std::string& place, const std::string& what) {
    fields.fail(place, "\"" + place + "\" " + what);
    return std::nullopt;
  };
  if (!in.is_object()) return fail(where, "must be an object");
  Json out = Json::object();
  for (const auto& [key, value] : in.items()) {
    if (may_be_left_out(key, value)) continue;
    if (key == "role" || key == "content") {
      out[key] = value;
    } else if (key == "name" || key == "reasoning_content" || key == "reasoning") {
      if (value.is_null()) continue;
      if (!value.is_string()) return fail(where + "." + key, "must be a string");
      out[key] = value;
    } else {
      return fail(where + "." + key.substr(0, 100),
                  "is not supported by this server: leave it out");
    }
  }
  if (!out.contains("role") || !out["role"].is_string())
    return fail(where + ".role", "must be a string");
  const std::string role = out["role"].get<std::string>();
  if (role == "developer") out["role"] = "system";
  static constexpr const char* kRoles[] = {"system", "developer", "user", "assistant"};
  if (std::ranges::find(kRoles, role) == std::end(kRoles)) {
    return fail(
        where + ".role",
        "is \"" + role.substr(0, 100) + "\", but must be system, developer, user or assistant");
  }
  if (out.value("content", Json()).is_null()) {
    if (role != "assistant") return fail(where + ".content", "is missing");
    out["content"] = "";
  }
  std::string why;
  if (!flatten_content(out, &why)) return fail(where + ".content", why);
  return out;
}

}  // namespace

ChatPrompt read_chat_prompt(FieldReader& fields, const ApiContext& context) {
  ChatPrompt prompt;
  fields.read("add_generation_prompt", prompt.add_generation_prompt);
  if (const Json* kwargs = fields.find("chat_template_kwargs")) {
    if (!kwargs->is_object())
      fields.fail("chat_template_kwargs", "\"chat_template_kwargs\" must be an object");
    prompt.template_kwargs_json = dump_json(*kwargs);
  }
  const Json* messages = fields.find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty()) {
    fields.fail("messages", "\"messages\" must be an array of at least one message");
    return prompt;
  }
  if (!context.has_chat_template) {
    fields.fail("messages",
                "this model has no chat template: use /v1/completions, or start the server with "
                "--chat-template FILE");
    return prompt;
  }
  Json out = Json::array();
  for (size_t i = 0; i < messages->size() && !fields.failed(); ++i) {
    std::optional<Json> message =
        read_message((*messages)[i], "messages[" + std::to_string(i) + "]", fields);
    if (message) out.push_back(std::move(*message));
  }
  prompt.messages_json = dump_json(out);
  return prompt;
}

}  // namespace quire
