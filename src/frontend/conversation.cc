#include "frontend/conversation.h"

#include <algorithm>
#include <utility>

#include "base/mutants.h"

namespace quire {
namespace {

// Two texts in place of the last answer that end differently, also in other cases.
constexpr const char* kAnswerA = "quire answer A";
constexpr const char* kAnswerB = "quire answer B";

std::string common_suffix(const std::string& a, const std::string& b) {
  const auto [end, unused] = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend());
  return std::string(end.base(), a.end());
}

}  // namespace

void Conversation::set_system(std::string text) {
  system_ = std::move(text);
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!system_.empty()) messages_.push_back({"system", system_});
  num_answered_ = messages_.size();
  tokens_.clear();
  asked_tokens_.clear();
}

std::string Conversation::messages_json() const {
  // ask() let nothing in that cannot be written; a system message may not have been asked with.
  const Result<std::string> json = to_messages_json(messages_);
  return json.ok() ? *json : "[]";
}

Result<std::vector<TokenId>> Conversation::ask(const std::string& user_text) {
  num_answered_ = messages_.size();
  messages_.push_back({"user", user_text});
  std::optional<std::vector<TokenId>> tokens;
  if (!tokens_.empty()) {
    QUIRE_ASSIGN_OR_RETURN(tokens, append_turn());
  }
  if (!tokens) {
    QUIRE_ASSIGN_OR_RETURN(tokens, encode_all());
  }
  asked_tokens_ = *tokens;
  return std::move(*tokens);
}

Result<std::vector<TokenId>> Conversation::encode_all() const {
  QUIRE_ASSIGN_OR_RETURN(const std::string whole, llm_->render({.messages = messages_}));
  return llm_->encode_chat(whole);
}

// Nothing when the template does not show the last answer.
Result<std::optional<std::vector<TokenId>>> Conversation::append_turn() const {
  QUIRE_ASSIGN_OR_RETURN(const std::string a, render_with_last_answer(kAnswerA));
  QUIRE_ASSIGN_OR_RETURN(const std::string b, render_with_last_answer(kAnswerB));
  if (a == b) return std::optional<std::vector<TokenId>>();
  std::string added = common_suffix(a, b);
  if (mutant("frontend_drops_turn_end")) added.erase(0, added.find('\n'));
  QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> rest, llm_->encode_chat(added));
  std::vector<TokenId> tokens = tokens_;
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return std::optional(std::move(tokens));
}

Result<std::string> Conversation::render_with_last_answer(const char* text) const {
  std::vector<ChatMessage> messages = messages_;
  messages[messages.size() - 2].content = text;  // ..., question, answer, the new question
  return llm_->render({.messages = std::move(messages)});
}

void Conversation::answer(const std::vector<TokenId>& tokens, const std::string& text) {
  messages_.push_back({"assistant", text});
  num_answered_ = messages_.size();
  tokens_ = std::move(asked_tokens_);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Conversation::forget_question() { messages_.resize(num_answered_); }

}  // namespace quire
