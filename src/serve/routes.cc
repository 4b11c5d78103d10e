#include "serve/routes.h"

#include <ctime>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "frontend/sampling_fields.h"
#include "serve/api_error.h"
#include "serve/generation.h"

namespace quire {

namespace {

HttpResponse json_response(const Json& json, int status = 200) {
  return {.status = status, .body = dump_json(json)};
}

// Work for a thread of its own: an I/O thread does not wait for it.
class WorkerReply : public Reply {
 public:
  ReplyPart poll() override {
    std::lock_guard lock(state_->mutex);
    if (!state_->response) return {};
    return {.head = std::exchange(state_->response, std::nullopt), .ended = true};
  }
  static std::unique_ptr<Reply> start(Service& service,
                                      std::function<HttpResponse()> work,
                                      Wake wake) {
    auto reply = std::make_unique<WorkerReply>();
    const bool queued = service.workers.submit(
        [state = reply->state_, work = std::move(work), wake = std::move(wake)] {
          HttpResponse response = work();
          {
            std::lock_guard lock(state->mutex);
            state->response = std::move(response);
          }
          wake();
        });
    if (queued) return reply;
    return reply_with(refusal(
        service, resource_exhausted("too many requests wait for the tokenizer; try again later")));
  }

 private:
  struct State {
    std::mutex mutex;
    std::optional<HttpResponse> response;  // guarded by mutex
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

std::unique_ptr<Reply> refuse(const ApiError& error) {
  return reply_with(error_response(error.http_status, error.message, error.param));
}

using Parse = std::optional<ApiRequest> (*)(const Json&, const ApiContext&, ApiError*);

std::unique_ptr<Reply> answer_prompts(Service& service,
                                      HttpRequest& request,
                                      Wake wake,
                                      Parse parse) {
  if (service.draining) {
    return reply_with(error_response(503, "the server is shutting down and takes no new requests"));
  }
  const Result<Json> body = parse_body(request.body);
  if (!body.ok()) return refuse({400, body.status().message(), ""});
  ApiError error;
  std::optional<ApiRequest> parsed = parse(*body, service.api, &error);
  if (!parsed) return refuse(error);
  return generate(service, std::move(*parsed), request.id, std::move(wake));
}

std::unique_ptr<Reply> complete(Service& service, HttpRequest& request, Wake wake) {
  return answer_prompts(service, request, std::move(wake), parse_completion);
}

std::unique_ptr<Reply> chat(Service& service, HttpRequest& request, Wake wake) {
  return answer_prompts(service, request, std::move(wake), parse_chat_completion);
}

Json model_card(const Service& service, const std::string& name) {
  static const int64_t kCreated = std::time(nullptr);
  return {{"id", name},
          {"object", "model"},
          {"created", kCreated},
          {"owned_by", "quire"},
          {"root", service.config.model_root},
          {"parent", nullptr},
          {"max_model_len", service.api.max_model_len}};
}

std::unique_ptr<Reply> models(Service& service, HttpRequest&, Wake) {
  Json cards = Json::array();
  for (const std::string& name : service.api.model_names)
    cards.push_back(model_card(service, name));
  return reply_with(json_response({{"object", "list"}, {"data", std::move(cards)}}));
}

// "org%2Fname" -> "org/name".
std::string percent_decoded(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escaped =
        text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
    out += escaped ? static_cast<char>(16 * digit(text[i + 1]) + digit(text[i + 2])) : text[i];
    if (escaped) i += 2;
  }
  return out;
}

constexpr std::string_view kModelsPrefix = "/v1/models/";

std::unique_ptr<Reply> one_model(Service& service, HttpRequest& request, Wake) {
  const std::string name =
      percent_decoded(std::string_view(request.path).substr(kModelsPrefix.size()));
  for (const std::string& served : service.api.model_names) {
    if (served == name) return reply_with(json_response(model_card(service, name)));
  }
  return refuse({404, "the model \"" + name.substr(0, 200) + "\" is not served here", "model"});
}

HttpResponse tokenized(const Service& service, const TokenizeRequest& request) {
  const Llm& llm = *service.llm;
  const auto encode = [&]() -> Result<std::vector<TokenId>> {
    if (const auto* text = std::get_if<std::string>(&request.input)) {
      return llm.tokenizer().encode(*text, {.add_special_tokens = request.add_special_tokens});
    }
    QUIRE_ASSIGN_OR_RETURN(const std::string rendered,
                           llm.render(std::get<ChatPrompt>(request.input)));
    return llm.encode_chat(rendered);
  };
  const Result<std::vector<TokenId>> tokens = encode();
  if (!tokens.ok()) return refusal(service, tokens.status());
  Json strings;
  if (request.return_token_strs) {
    strings = Json::array();
    for (const TokenId id : *tokens)
      strings.push_back(llm.tokenizer().id_to_token(id).value_or(""));
  }
  return json_response({{"count", tokens->size()},
                        {"max_model_len", service.api.max_model_len},
                        {"tokens", *tokens},
                        {"token_strs", std::move(strings)}});
}

std::unique_ptr<Reply> tokenize(Service& service, HttpRequest& request, Wake wake) {
  const Result<Json> body = parse_body(request.body);
  if (!body.ok()) return refuse({400, body.status().message(), ""});
  ApiError error;
  std::optional<TokenizeRequest> parsed = parse_tokenize(*body, service.api, &error);
  if (!parsed) return refuse(error);
  return WorkerReply::start(
      service,
      [&service, parsed = std::move(*parsed)] { return tokenized(service, parsed); },
      std::move(wake));
}

HttpResponse detokenized(const Service& service, const std::vector<TokenId>& tokens) {
  const int vocab_size = service.llm->tokenizer().vocab_size();
  for (const TokenId id : tokens) {
    if (id < vocab_size) continue;
    return error_response(400,
                          "token " + std::to_string(id) + " is not in the vocabulary of " +
                              std::to_string(vocab_size) + " tokens",
                          "tokens");
  }
  const Result<std::string> text = service.llm->tokenizer().decode(tokens, false);
  if (!text.ok()) return refusal(service, text.status());
  return json_response({{"prompt", *text}});
}

std::unique_ptr<Reply> detokenize(Service& service, HttpRequest& request, Wake wake) {
  const Result<Json> body = parse_body(request.body);
  if (!body.ok()) return refuse({400, body.status().message(), ""});
  ApiError error;
  std::optional<std::vector<TokenId>> parsed = parse_detokenize(*body, service.api, &error);
  if (!parsed) return refuse(error);
  return WorkerReply::start(
      service,
      [&service, parsed = std::move(*parsed)] { return detokenized(service, parsed); },
      std::move(wake));
}

double seconds_since(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - time).count();
}

// Not only alive, but getting on: with work waiting, the engine must take steps.
std::unique_ptr<Reply> health(Service& service, HttpRequest&, Wake) {
  const EngineStats stats = service.llm->stats();
  Json body = {{"status", "ok"},
               {"running", stats.num_running},
               {"waiting", stats.num_waiting},
               {"oldest_request_seconds", nullptr},
               {"seconds_since_step", nullptr}};
  if (const auto oldest = service.in_flight.oldest())
    body["oldest_request_seconds"] = seconds_since(*oldest);
  bool stalled = false;
  if (const auto busy_since = service.in_flight.busy_since()) {
    const double waited = seconds_since(std::max(*busy_since, stats.last_progress));
    body["seconds_since_step"] = waited;
    stalled = waited > static_cast<double>(service.config.stall_timeout.count());
  }
  if (service.draining) {
    body["status"] = "shutting down";
  } else if (stalled) {
    body["status"] =
        "stalled: requests wait, and the engine has taken no step for longer than --stall-timeout";
  }
  return reply_with(json_response(body, service.draining || stalled ? 503 : 200));
}

std::unique_ptr<Reply> version(Service& service, HttpRequest&, Wake) {
  return reply_with(json_response({{"version", service.config.version}}));
}

std::unique_ptr<Reply> load(Service& service, HttpRequest&, Wake) {
  return reply_with(json_response({{"server_load", service.in_flight.count()}}));
}

std::unique_ptr<Reply> metrics(Service& service, HttpRequest&, Wake) {
  return reply_with({.body = service.metrics.text(service.llm->stats()),
                     .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

using Route = std::unique_ptr<Reply> (*)(Service&, HttpRequest&, Wake);

struct RouteEntry {
  RouteName name;
  Route answer;
};

constexpr RouteEntry kRoutes[] = {
    {{"POST", "/v1/chat/completions"}, chat},
    {{"POST", "/v1/completions"}, complete},
    {{"GET", "/v1/models"}, models},
    {{"POST", "/tokenize"}, tokenize},
    {{"POST", "/detokenize"}, detokenize},
    {{"GET", "/health"}, health},
    {{"GET", "/ping"}, health},
    {{"POST", "/ping"}, health},
    {{"GET", "/version"}, version},
    {{"GET", "/load"}, load},
    {{"GET", "/metrics"}, metrics},
};

}  // namespace

std::vector<RouteName> route_names() {
  std::vector<RouteName> names;
  for (const RouteEntry& entry : kRoutes) names.push_back(entry.name);
  return names;
}

std::unique_ptr<Reply> route(Service& service, HttpRequest& request, Wake wake) {
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  const bool names_model =
      request.path.starts_with(kModelsPrefix) && request.path.size() > kModelsPrefix.size();
  if (method == "GET" && names_model) return one_model(service, request, std::move(wake));
  std::string methods = names_model ? "GET" : "";
  std::vector<std::string> paths;
  for (const RouteEntry& entry : kRoutes) {
    paths.emplace_back(entry.name.path);
    if (request.path != entry.name.path) continue;
    if (method == entry.name.method) return entry.answer(service, request, std::move(wake));
    methods += (methods.empty() ? "" : ", ") + std::string(entry.name.method);
  }
  const std::string path = request.path.substr(0, 200);
  if (!methods.empty()) {
    HttpResponse refused =
        error_response(405, path + " takes " + methods + ", not " + request.method.substr(0, 20));
    refused.headers.emplace_back("Allow", methods);
    return reply_with(std::move(refused));
  }
  const std::string near = nearest(path, paths);
  return reply_with(error_response(
      404, "there is no route " + path + (near.empty() ? "" : "; did you mean " + near + "?")));
}

}  // namespace quire
