// A body of the OpenAI API -> what the engine is asked. Every field is either honoured or refused
// by name; none is ignored, but for those that OpenAI documents and that have no meaning here.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "frontend/json.h"
#include "frontend/llm.h"

namespace quire {

// What a request is read against: the model's names, limits and defaults.
struct ApiContext {
  std::vector<std::string> model_names;  // the first one stands in answers
  SamplingParams defaults;               // of fields that a request leaves out
  int max_model_len = 0, max_num_seqs = 0, vocab_size = 0;
  bool has_chat_template = false;
};

inline constexpr size_t kMaxPromptsOfRequest = 1024;
inline constexpr int kDefaultCompletionTokens = 16;  // OpenAI's

// Of /v1/completions and /v1/chat/completions.
struct ApiRequest {
  bool is_chat = false;
  std::vector<GenerateRequest> prompts;  // alike but for the prompt; a chat has one
  std::string model;                     // as it stands in the answer
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false, return_token_ids = false;
  std::optional<int> logprobs;         // to report: alternatives per token
  std::optional<int> prompt_logprobs;  // to report
  std::vector<std::string> fields;     // that the body had

  int n() const { return prompts[0].sampling.n; }
};

struct ApiError {
  int http_status = 400;
  std::string message, param;
};

// A JSON object, or why it is none.
Result<Json> parse_body(std::string_view body);

// Each fills *error and returns nothing when the request is refused.
std::optional<ApiRequest> parse_completion(const Json& body,
                                           const ApiContext& context,
                                           ApiError* error);
std::optional<ApiRequest> parse_chat_completion(const Json& body,
                                                const ApiContext& context,
                                                ApiError* error);

// The field that the engine's refusal of `request` is about, or "".
std::string param_of(const std::string& message, const ApiRequest& request);

struct TokenizeRequest {
  std::variant<std::string, ChatPrompt> input;
  bool add_special_tokens = true, return_token_strs = false;
};
std::optional<TokenizeRequest> parse_tokenize(const Json& body,
                                              const ApiContext& context,
                                              ApiError* error);
std::optional<std::vector<TokenId>> parse_detokenize(const Json& body,
                                                     const ApiContext& context,
                                                     ApiError* error);

}  // namespace quire
