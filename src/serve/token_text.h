// Log-probabilities in the shapes of OpenAI's and vLLM's API.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "frontend/json.h"
#include "text/tokenizer.h"

namespace quire {

// The text that a single token stands for in the middle of a text: decoders strip a space that
// begins the text, so the token is decoded after another one.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer& tokenizer);
  std::string text_of(TokenId id) const;
  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  const Tokenizer* tokenizer_;
  std::vector<TokenId> anchor_;  // tokens of a letter
  std::string anchor_text_;
};

// {"content": [{"token", "logprob", "bytes", "top_logprobs": [...]}, ...]}, of a chat.
Json chat_logprobs(const std::vector<LogprobList>& lists, const TokenTexts& texts);

// {"text_offset", "token_logprobs", "tokens", "top_logprobs"}, of a completion. A list without
// entries is a token without log-probability (the prompt's first). *offset is that of the first
// token, in characters, and moves on.
struct ScoredToken {
  TokenId token;
  const LogprobList* logprobs;  // null: none
};
Json completion_logprobs(const std::vector<ScoredToken>& tokens,
                         const TokenTexts& texts,
                         int64_t* offset);

// vLLM's prompt_logprobs: null for the first token, then {"ID": {"logprob", "rank",
// "decoded_token"}, ...} for each.
Json prompt_logprobs_json(const std::vector<LogprobList>& lists, const TokenTexts& texts);

}  // namespace quire
