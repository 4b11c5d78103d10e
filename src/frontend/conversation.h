// A chat whose earlier turns are never tokenised or computed again: each turn appends token ids, so
// the prefix stays equal token for token and its KV blocks are found in the cache.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "frontend/json.h"
#include "frontend/llm.h"

namespace quire {

class Conversation {
 public:
  explicit Conversation(const Llm& llm) : llm_(&llm) {}

  void set_system(std::string text);  // also forgets the conversation
  void reset();

  // The prompt tokens of the next turn. Templates that rewrite earlier turns (dropping their
  // reasoning, say) make the whole history be encoded again.
  Result<std::vector<TokenId>> ask(const std::string& user_text);
  // What the model answered: its tokens, without the one that ended it, and their text.
  void answer(const std::vector<TokenId>& tokens, const std::string& text);
  // Forgets the question of the last ask() (it failed).
  void forget_question();

  const std::string& messages_json() const { return messages_json_; }
  size_t num_tokens() const { return tokens_.size(); }

 private:
  Result<std::string> render(const std::string& messages_json, bool add_generation_prompt) const;

  const Llm* llm_;
  std::string system_;
  std::string messages_json_ = "[]";
  std::string before_question_ = "[]";  // messages before the last ask()
  std::string answered_question_;       // messages up to the last question that was answered
  std::vector<TokenId> tokens_;         // of everything up to the last answer
  std::vector<TokenId> asked_tokens_;   // prompt of the last ask()
};

}  // namespace quire
