// Any bytes as the body of each route that reads one; what is accepted keeps what later code relies
// on.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "serve/api_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto body = quire::parse_body(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!body.ok()) return 0;
  quire::ApiContext context;
  context.model_names = {"tiny"};
  context.max_model_len = 4096;
  context.max_num_seqs = 256;
  context.vocab_size = 32000;
  context.has_chat_template = true;
  for (const auto parse : {quire::parse_completion, quire::parse_chat_completion}) {
    quire::ApiError error;
    const auto request = parse(*body, context, &error);
    QUIRE_CHECK(request.has_value() == error.message.empty());
    if (!request) continue;
    QUIRE_CHECK(!request->prompts.empty());
    QUIRE_CHECK(request->n() <= context.max_num_seqs);
    QUIRE_CHECK(request->prompts.size() <= quire::kMaxPromptsOfRequest);
  }
  quire::ApiError error;
  const auto tokenize = quire::parse_tokenize(*body, context, &error);
  QUIRE_CHECK(tokenize.has_value() == error.message.empty());
  error = {};
  const auto detokenize = quire::parse_detokenize(*body, context, &error);
  QUIRE_CHECK(detokenize.has_value() == error.message.empty());
  return 0;
}
