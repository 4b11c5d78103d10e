#include "frontend/conversation.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace quire {
namespace {

// Stands for the last answer while its turn is rendered: tells what the template puts before and
// after it.
constexpr const char* kAnswerMark =
    "quire\xEE\x80\x80"
    "answer\xEE\x80\x81";

std::string append_message(const std::string& messages_json,
                           const char* role,
                           const std::string& content) {
  Json messages = Json::parse(messages_json);
  messages.push_back({{"role", role}, {"content", content}});
  return dump_json(messages);
}

std::string with_last_answer(const std::string& messages_json, const std::string& content) {
  Json messages = Json::parse(messages_json);
  messages.back()["content"] = content;
  return dump_json(messages);
}

}  // namespace

void Conversation::set_system(std::string text) {
  system_ = std::move(text);
  reset();
}

void Conversation::reset() {
  messages_json_ = system_.empty() ? "[]" : append_message("[]", "system", system_);
  before_question_ = messages_json_;
  tokens_.clear();
  asked_tokens_.clear();
}

Result<std::string> Conversation::render(const std::string& messages_json,
                                         bool add_generation_prompt) const {
  return llm_->render(
      {.messages_json = messages_json, .add_generation_prompt = add_generation_prompt});
}

Result<std::vector<TokenId>> Conversation::ask(const std::string& user_text) {
  const std::string messages = append_message(messages_json_, "user", user_text);
  std::vector<TokenId> tokens;
  if (!tokens_.empty()) {
    // Render with a mark in place of the last answer; what follows the mark is new, and what stands
    // before it must be what the last turn's prompt was.
    const std::string marked =
        append_message(with_last_answer(messages_json_, kAnswerMark), "user", user_text);
    QUIRE_ASSIGN_OR_RETURN(const std::string whole, render(marked, true));
    QUIRE_ASSIGN_OR_RETURN(const std::string before, render(answered_question_, true));
    const size_t mark = whole.find(kAnswerMark);
    if (mark == before.size() && whole.compare(0, mark, before) == 0) {
      QUIRE_ASSIGN_OR_RETURN(
          const std::vector<TokenId> rest,
          llm_->encode_chat(whole.substr(mark + std::string(kAnswerMark).size())));
      tokens = tokens_;
      tokens.insert(tokens.end(), rest.begin(), rest.end());
    }
  }
  if (tokens.empty()) {
    QUIRE_ASSIGN_OR_RETURN(const std::string whole, render(messages, true));
    QUIRE_ASSIGN_OR_RETURN(tokens, llm_->encode_chat(whole));
  }
  before_question_ = std::exchange(messages_json_, messages);
  asked_tokens_ = tokens;
  return tokens;
}

void Conversation::answer(const std::vector<TokenId>& tokens, const std::string& text) {
  answered_question_ = messages_json_;
  messages_json_ = append_message(messages_json_, "assistant", text);
  tokens_ = std::move(asked_tokens_);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Conversation::forget_question() { messages_json_ = before_question_; }

}  // namespace quire
