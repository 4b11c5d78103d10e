#include "serve/generation.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "serve/answer_format.h"
#include "serve/api_error.h"

namespace quire {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", seconds * 1000);
  return text;
}

class GenerationReply : public Reply {
 public:
  GenerationReply(Service& service, ApiRequest request, const std::string& id)
      : service_(&service),
        request_(std::move(request)),
        ticket_(service.in_flight),
        format_(request_.is_chat ? make_chat_format(request_, service.texts, id)
                                 : make_completion_format(request_, service.texts, id)) {}
  ~GenerationReply() override { note_end(); }

  Status submit(const std::string& id, const Wake& wake);
  const ApiRequest& request() const { return request_; }
  ReplyPart poll() override;
  HttpHeaders log_fields() const override;

 private:
  struct Prompt {
    TextStream stream;
    PromptView view;
    bool admitted = false;
  };
  struct Choice {
    ChoiceState state;
    TextDelta whole;  // without streaming: so far
    int num_tokens = 0;
    std::optional<Clock::time_point> last_token;
    const char* finish_reason = nullptr;
  };
  struct Event {
    int choice;
    TextDelta delta;
  };

  std::vector<Event> take_events();
  void note(Choice& choice, const TextDelta& delta);
  void note_end();
  void fill_view(Prompt& prompt);
  Json usage() const;
  std::string server_sent(const Json& json) const { return "data: " + dump_json(json) + "\n\n"; }
  ReplyPart poll_stream(std::vector<Event> events);
  ReplyPart poll_whole(std::vector<Event> events);
  void append_chunk_of(const Event& event, std::string* out);
  bool finished() const;
  int n() const { return num_given_; }

  Service* service_;
  const ApiRequest request_;
  InFlight::Ticket ticket_;
  std::unique_ptr<AnswerFormat> format_;
  int num_given_ = 1;  // answers to each prompt
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  // of prompt p: [p * n, (p + 1) * n)
  Status error_;
  bool began_ = false, saw_token_ = false, noted_ = false;
  double first_token_seconds_ = 0;
};

Status GenerationReply::submit(const std::string& id, const Wake& wake) {
  num_given_ = request_.n();
  choices_.resize(request_.prompts.size() * num_given_);
  for (size_t i = 0; i < choices_.size(); ++i) choices_[i].state.index = static_cast<int>(i);
  for (size_t p = 0; p < request_.prompts.size(); ++p) {
    GenerateRequest one = request_.prompts[p];
    one.id = request_.prompts.size() == 1 ? id : id + "-" + std::to_string(p);
    one.on_output = wake;
    QUIRE_ASSIGN_OR_RETURN(TextStream stream, service_->llm->submit(std::move(one)));
    prompts_.push_back({std::move(stream), {}, false});
  }
  return {};
}

// What the prompt looks like is known when the engine has it.
void GenerationReply::fill_view(Prompt& prompt) {
  prompt.admitted = true;
  prompt.view.tokens = prompt.stream.prompt_tokens();
  if (!request_.echo) return;
  const auto& sent = request_.prompts[&prompt - prompts_.data()].prompt;
  if (const auto* text = std::get_if<std::string>(&sent)) {
    prompt.view.text = *text;
  } else if (Result<std::string> text = service_->llm->tokenizer().decode(prompt.view.tokens);
             text.ok()) {
    prompt.view.text = std::move(*text);
  }
}

// All that is there. Nothing more is read once one of the prompts has failed.
std::vector<GenerationReply::Event> GenerationReply::take_events() {
  std::vector<Event> events;
  for (size_t p = 0; p < prompts_.size() && error_.ok(); ++p) {
    Prompt& prompt = prompts_[p];
    while (std::optional<TextDelta> delta = prompt.stream.poll()) {
      if (delta->finish_reason == FinishReason::kError) {
        error_ = delta->error;
        break;
      }
      if (!delta->prompt_logprobs.empty()) prompt.view.logprobs = std::move(delta->prompt_logprobs);
      const int choice = static_cast<int>(p) * n() + delta->index;
      note(choices_[choice], *delta);
      events.push_back({choice, std::move(*delta)});
    }
    if (!prompt.admitted && prompt.stream.admitted()) fill_view(prompt);
  }
  return events;
}

void GenerationReply::note(Choice& choice, const TextDelta& delta) {
  const int count = static_cast<int>(delta.tokens.size());
  if (delta.finish_reason != FinishReason::kNone) {
    choice.finish_reason = finish_reason_name(delta.finish_reason);
  }
  if (count == 0) return;
  choice.num_tokens += count;
  const auto now = Clock::now();
  if (!saw_token_) {
    saw_token_ = true;
    first_token_seconds_ = seconds_between(ticket_.start(), now);
    service_->metrics.note_first_token(first_token_seconds_);
  }
  if (choice.last_token)
    service_->metrics.note_tokens(count, seconds_between(*choice.last_token, now));
  choice.last_token = now;
}

bool GenerationReply::finished() const {
  return std::ranges::all_of(prompts_, [](const Prompt& p) { return p.stream.finished(); });
}

Json GenerationReply::usage() const {
  int64_t prompt = 0, completion = 0, cached = 0;
  for (const Prompt& p : prompts_) {
    prompt += static_cast<int64_t>(p.view.tokens.size());
    completion += p.stream.stats().num_generated_tokens;
    cached += p.stream.stats().num_cached_tokens;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

ReplyPart GenerationReply::poll() {
  std::vector<Event> events = take_events();
  if (!error_.ok() && !began_) {
    return {.head = refusal(*service_, error_, param_of(error_.message(), request_)),
            .ended = true};
  }
  ReplyPart part = request_.stream ? poll_stream(std::move(events)) : poll_whole(std::move(events));
  if (part.ended) note_end();  // before the client knows
  return part;
}

ReplyPart GenerationReply::poll_whole(std::vector<Event> events) {
  for (Event& event : events) choices_[event.choice].whole.append(std::move(event.delta));
  if (!finished()) return {};
  Json choices = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices.push_back(format_->whole(choices_[i].state, prompts_[i / n()].view, choices_[i].whole));
  }
  Json answer = format_->envelope(false);
  answer["choices"] = std::move(choices);
  answer["usage"] = usage();
  began_ = true;
  return {.head = HttpResponse{.body = dump_json(answer)}, .ended = true};
}

void GenerationReply::append_chunk_of(const Event& event, std::string* out) {
  Choice& choice = choices_[event.choice];
  Json shown = format_->part(choice.state, prompts_[event.choice / n()].view, event.delta);
  if (shown.is_null()) return;
  Json chunk = format_->envelope(true);
  chunk["choices"] = Json::array({std::move(shown)});
  if (request_.continuous_usage) {
    chunk["usage"] = usage();
  } else if (request_.include_usage) {
    chunk["usage"] = nullptr;
  }
  *out += server_sent(chunk);
}

// The head goes out when the engine has every prompt: until then there may be an error to tell.
ReplyPart GenerationReply::poll_stream(std::vector<Event> events) {
  ReplyPart part;
  if (!began_) {
    if (!std::ranges::all_of(prompts_, [](const Prompt& p) { return p.admitted; })) {
      for (Event& event : events) choices_[event.choice].whole.append(std::move(event.delta));
      return part;
    }
    began_ = true;
    part.head = HttpResponse{.headers = {{"Cache-Control", "no-cache"}},
                             .content_type = "text/event-stream",
                             .streams = true};
    for (size_t i = 0; i < choices_.size(); ++i) {
      TextDelta early = std::exchange(choices_[i].whole, {});
      early.index = static_cast<int>(i) % n();
      const bool came = !early.tokens.empty() || early.finish_reason != FinishReason::kNone;
      if (came) events.insert(events.begin(), {static_cast<int>(i), std::move(early)});
    }
  }
  for (const Event& event : events) append_chunk_of(event, &part.body);
  if (!error_.ok()) {
    part.body += server_sent(error_json(http_status_of(error_), error_.message()));
  } else if (!finished()) {
    return part;
  } else if (request_.include_usage) {
    Json chunk = format_->envelope(true);
    chunk["choices"] = Json::array();
    chunk["usage"] = usage();
    part.body += server_sent(chunk);
  }
  part.body += "data: [DONE]\n\n";
  part.ended = true;
  return part;
}

// Also of a request whose client went away: its answers were aborted.
void GenerationReply::note_end() {
  if (std::exchange(noted_, true)) return;
  if (!error_.ok() && !saw_token_) return;  // refused
  const double end_to_end = seconds_between(ticket_.start(), Clock::now());
  for (size_t p = 0; p < prompts_.size(); ++p) {
    const SamplingParams& sampling = request_.prompts[p].sampling;
    RequestMetrics metrics{.stats = prompts_[p].stream.stats(),
                           .params_n = sampling.n,
                           .params_max_tokens = sampling.max_tokens,
                           .end_to_end = end_to_end};
    for (int i = 0; i < n(); ++i) {
      const Choice& choice = choices_[p * n() + i];
      metrics.max_generation_tokens = std::max(metrics.max_generation_tokens, choice.num_tokens);
      metrics.finish_reasons.push_back(choice.finish_reason != nullptr ? choice.finish_reason
                                       : error_.ok()                   ? "abort"
                                                                       : "error");
    }
    service_->metrics.note_ended(metrics);
  }
}

HttpHeaders GenerationReply::log_fields() const {
  int64_t prompt = 0, completion = 0, cached = 0, preemptions = 0;
  double queue = 0;
  for (const Prompt& p : prompts_) {
    prompt += static_cast<int64_t>(p.view.tokens.size());
    completion += p.stream.stats().num_generated_tokens;
    cached += p.stream.stats().num_cached_tokens;
    preemptions += p.stream.stats().num_preemptions;
    queue = std::max(queue, p.stream.stats().scheduled_seconds);
  }
  HttpHeaders fields = {{"stream", request_.stream ? "true" : "false"},
                        {"prompt_tokens", std::to_string(prompt)},
                        {"cached_tokens", std::to_string(cached)},
                        {"completion_tokens", std::to_string(completion)},
                        {"preemptions", std::to_string(preemptions)},
                        {"queue_ms", milliseconds(queue)},
                        {"ttft_ms", milliseconds(first_token_seconds_)}};
  if (choices_.size() == 1 && choices_[0].finish_reason != nullptr) {
    fields.emplace_back("finish_reason", choices_[0].finish_reason);
  }
  if (!error_.ok()) fields.emplace_back("error", error_.message());
  return fields;
}

}  // namespace

HttpResponse refusal(const Service& service, const Status& status, const std::string& param) {
  const int code = http_status_of(status);
  Json body = error_json(code, status.message(), param);
  HttpResponse response{.status = code};
  if (code == 429) {
    const int waiting = service.in_flight.count() - service.llm->stats().num_running;
    body["error"]["queue_length"] = std::max(0, waiting);
    response.headers.emplace_back("Retry-After", "1");
  }
  response.body = dump_json(body);
  return response;
}

std::unique_ptr<Reply> generate(Service& service,
                                ApiRequest request,
                                std::string request_id,
                                Wake wake) {
  auto reply = std::make_unique<GenerationReply>(service, std::move(request), request_id);
  if (Status status = reply->submit(request_id, wake); !status.ok()) {
    return reply_with(refusal(service, status, param_of(status.message(), reply->request())));
  }
  return reply;
}

}  // namespace quire
