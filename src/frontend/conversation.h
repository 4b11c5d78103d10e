// A chat that only ever appends token ids: what the model has read and written stays in its context
// token for token, so that its KV blocks are found in the cache.
//
// A turn adds what the chat template writes after the last answer: the end of that answer's turn,
// the user's turn, the start of the next answer. To find it, the new messages are rendered twice
// with two different texts in place of the last answer; what both renderings end with is new. What
// the template makes of earlier turns does not matter: where it rewrites them (Qwen3 and
// DeepSeek-R1 drop the reasoning of earlier answers), a chat that was rendered anew would lose
// those tokens, this one keeps them, as the model wrote them. Only a template that does not show
// the last answer at all has no history to append to: its whole rendering is the prompt.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "frontend/llm.h"

namespace quire {

class Conversation {
 public:
  explicit Conversation(const Llm& llm) : llm_(&llm) {}

  // Also forgets the conversation. ask() refuses when `text` is not UTF-8.
  void set_system(std::string text);
  void reset();

  // The prompt tokens of the next turn.
  Result<std::vector<TokenId>> ask(const std::string& user_text);
  // What the model answered: its tokens, without the one that ended it, and their text.
  void answer(const std::vector<TokenId>& tokens, const std::string& text);
  // Forgets the question of the last ask() (it failed).
  void forget_question();

  std::string messages_json() const;
  size_t num_tokens() const { return tokens_.size(); }

 private:
  Result<std::vector<TokenId>> encode_all() const;
  Result<std::optional<std::vector<TokenId>>> append_turn() const;
  Result<std::string> render_with_last_answer(const char* text) const;

  const Llm* llm_;
  std::string system_;
  std::vector<ChatMessage> messages_;
  size_t num_answered_ = 0;            // messages before the last ask()
  std::vector<TokenId> tokens_;        // of everything up to the last answer
  std::vector<TokenId> asked_tokens_;  // prompt of the last ask()
};

}  // namespace quire
