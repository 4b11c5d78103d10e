// The shape of an answer: {"id", "object", "created", "model", "choices", "usage"}, whole or as the
// chunks of a stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "frontend/json.h"
#include "frontend/text_stream.h"
#include "serve/api_request.h"
#include "serve/token_text.h"

namespace quire {

// One prompt of the request, as far as its choices show it.
struct PromptView {
  std::string text;  // for echo
  std::vector<TokenId> tokens;
  std::vector<LogprobList> logprobs;
};

// One choice of a stream between two chunks.
struct ChoiceState {
  int index = 0;
  bool begun = false;
  int64_t text_offset = 0;
};

class AnswerFormat {
 public:
  AnswerFormat(const ApiRequest& request, const TokenTexts& texts, std::string id);
  virtual ~AnswerFormat() = default;

  virtual Json whole(ChoiceState& state,
                     const PromptView& prompt,
                     const TextDelta& answer) const = 0;
  // Null where the delta shows nothing.
  virtual Json part(ChoiceState& state, const PromptView& prompt, const TextDelta& delta) const = 0;
  virtual const char* object(bool is_chunk) const = 0;
  Json envelope(bool is_chunk) const;

 protected:
  // finish_reason, stop_reason and what the request asked for beside.
  void add_common(const TextDelta& delta, const PromptView& prompt, bool first, Json& choice) const;
  bool shows_anything(const TextDelta& delta) const;

  const ApiRequest* request_;
  const TokenTexts* texts_;

 private:
  const std::string id_;
  const int64_t created_;
};

std::unique_ptr<AnswerFormat> make_chat_format(const ApiRequest& request,
                                               const TokenTexts& texts,
                                               const std::string& id);
std::unique_ptr<AnswerFormat> make_completion_format(const ApiRequest& request,
                                                     const TokenTexts& texts,
                                                     const std::string& id);

}  // namespace quire
