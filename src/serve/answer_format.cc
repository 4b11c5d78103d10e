#include "serve/answer_format.h"

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

namespace quire {

AnswerFormat::AnswerFormat(const ApiRequest& request, const TokenTexts& texts, std::string id)
    : request_(&request), texts_(&texts), id_(std::move(id)), created_(std::time(nullptr)) {}

Json AnswerFormat::envelope(bool is_chunk) const {
  return {
      {"id", id_}, {"object", object(is_chunk)}, {"created", created_}, {"model", request_->model}};
}

bool AnswerFormat::shows_anything(const TextDelta& delta) const {
  return !delta.text.empty() || !delta.logprobs.empty() ||
         delta.finish_reason != FinishReason::kNone ||
         (request_->return_token_ids && !delta.tokens.empty());
}

void AnswerFormat::add_common(const TextDelta& delta,
                              const PromptView& prompt,
                              bool first,
                              Json& choice) const {
  const bool ended = delta.finish_reason != FinishReason::kNone;
  choice["finish_reason"] = ended ? Json(finish_reason_name(delta.finish_reason)) : Json();
  choice["stop_reason"] = delta.stop_string  ? Json(*delta.stop_string)
                          : delta.stop_token ? Json(*delta.stop_token)
                                             : Json();
  if (delta.score) choice["score"] = *delta.score;
  if (request_->return_token_ids) {
    choice["token_ids"] = delta.tokens;
    if (first) choice["prompt_token_ids"] = prompt.tokens;
  }
  if (request_->prompt_logprobs && first) {
    choice["prompt_logprobs"] = prompt_logprobs_json(prompt.logprobs, *texts_);
  }
}

namespace {

class ChatFormat : public AnswerFormat {
 public:
  using AnswerFormat::AnswerFormat;

  Json whole(ChoiceState& state, const PromptView& prompt, const TextDelta& answer) const override {
    Json choice = {
        {"index", state.index},
        {"message", {{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}}},
        {"logprobs", logprobs_of(answer)}};
    add_common(answer, prompt, true, choice);
    return choice;
  }

  Json part(ChoiceState& state, const PromptView& prompt, const TextDelta& delta) const override {
    if (!shows_anything(delta) && state.begun) return nullptr;
    const bool first = !std::exchange(state.begun, true);
    Json message = Json::object();
    if (first) message["role"] = "assistant";
    if (first || !delta.text.empty()) message["content"] = delta.text;
    Json choice = {
        {"index", state.index}, {"delta", std::move(message)}, {"logprobs", logprobs_of(delta)}};
    add_common(delta, prompt, first, choice);
    return choice;
  }

  const char* object(bool is_chunk) const override {
    return is_chunk ? "chat.completion.chunk" : "chat.completion";
  }

 private:
  Json logprobs_of(const TextDelta& delta) const {
    if (!request_->logprobs || delta.logprobs.empty()) return nullptr;
    return chat_logprobs(delta.logprobs, *texts_);
  }
};

class CompletionFormat : public AnswerFormat {
 public:
  using AnswerFormat::AnswerFormat;

  Json whole(ChoiceState& state, const PromptView& prompt, const TextDelta& answer) const override {
    return show(state, prompt, answer);
  }
  Json part(ChoiceState& state, const PromptView& prompt, const TextDelta& delta) const override {
    const bool echoes = request_->echo && !state.begun;
    return shows_anything(delta) || echoes ? show(state, prompt, delta) : Json();
  }
  const char* object(bool) const override { return "text_completion"; }

 private:
  Json show(ChoiceState& state, const PromptView& prompt, const TextDelta& delta) const {
    const bool first = !std::exchange(state.begun, true);
    const bool echoes = request_->echo && first;
    Json choice = {{"index", state.index},
                   {"text", (echoes ? prompt.text : "") + delta.text},
                   {"logprobs", logprobs_of(state, echoes ? &prompt : nullptr, delta)}};
    add_common(delta, prompt, first, choice);
    return choice;
  }

  Json logprobs_of(ChoiceState& state, const PromptView* echoed, const TextDelta& delta) const {
    if (!request_->logprobs) return nullptr;
    std::vector<ScoredToken> scored;
    for (size_t i = 0; echoed != nullptr && i < echoed->tokens.size(); ++i) {
      const bool known = i > 0 && i <= echoed->logprobs.size();
      scored.push_back({echoed->tokens[i], known ? &echoed->logprobs[i - 1] : nullptr});
    }
    for (const LogprobList& list : delta.logprobs) scored.push_back({list[0].token, &list});
    return completion_logprobs(scored, *texts_, &state.text_offset);
  }
};

}  // namespace

std::unique_ptr<AnswerFormat> make_chat_format(const ApiRequest& request,
                                               const TokenTexts& texts,
                                               const std::string& id) {
  return std::make_unique<ChatFormat>(request, texts, "chatcmpl-" + id);
}

std::unique_ptr<AnswerFormat> make_completion_format(const ApiRequest& request,
                                                     const TokenTexts& texts,
                                                     const std::string& id) {
  return std::make_unique<CompletionFormat>(request, texts, "cmpl-" + id);
}

}  // namespace quire
