// The ways answers are reported.
#pragma once

#include <string>
#include <vector>

#include "frontend/json.h"
#include "frontend/llm.h"

namespace quire {

// Of one answer: {"text", "token_ids", "finish_reason", "stop_reason", "score"?, "logprobs"?,
// "usage", "timings"}. Of several: {"choices": [{"index", "text", ...}], "usage", "timings"}.
Json answers_json(const std::vector<TextDelta>& answers,
                  const TextStream& stream,
                  const Tokenizer& tokenizer);

// "prompt 37 tokens, prefill 410.2 tok/s | generated 8 tokens, decode 92.1 tok/s | KV blocks 3 of
// 512 | ..."
// The answer's own figures are left out where nothing was computed.
std::string figures_line(const RequestStats& stats, const Llm& llm);

// "KV pool: 512 blocks x ...", on standard error.
void print_kv_pool(const KvPoolPlan& plan);

}  // namespace quire
