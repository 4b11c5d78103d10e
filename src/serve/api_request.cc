#include "serve/api_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "frontend/sampling_fields.h"
#include "frontend/utf8.h"
#include "serve/chat_messages.h"
#include "serve/field_reader.h"
#include "serve/json_limits.h"
#include "serve/request_size.h"

namespace quire {

namespace {

bool never(const Json&) { return false; }
auto is(Json only) {
  return [only = std::move(only)](const Json& value) { return value == only; };
}
bool is_empty_or_false(const Json& value) {
  return value == false || ((value.is_structured() || value.is_string()) && value.empty());
}
bool is_text_format(const Json& value) {
  return value.is_object() && value.size() == 1 && value.value("type", Json()) == "text";
}

constexpr const char* kNotSupported = "is not supported by this server: leave it out";

// Fields of OpenAI's and vLLM's API whose effect quire does not have. Each may say what is done
// anyway.
void refuse_unsupported(FieldReader& fields) {
  for (const char* name :
       {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}) {
    fields.accept(name);  // documented by OpenAI, about its own service
  }
  fields.accept_if(
      "response_format",
      is_text_format,
      "may only be {\"type\": \"text\"}: this server does not constrain answers to a format");
  for (const char* name :
       {"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}) {
    fields.accept_if(
        name, never, "is not supported: this server does not constrain answers to a format");
  }
  for (const char* name : {"bad_words",
                           "logits_processors",
                           "kv_transfer_params",
                           "ec_transfer_params",
                           "vllm_xargs",
                           "session_id",
                           "repetition_detection",
                           "thinking_token_budget",
                           "prompt_logprob_token_ids",
                           "logprob_token_ids",
                           "truncate_prompt_tokens",
                           "truncation_side",
                           "watermarking",
                           "request_id",
                           "stream_interval",
                           "return_tokens_as_token_ids",
                           "return_prompt_text",
                           "prompt_embeds",
                           "lora_request"}) {
    fields.accept_if(name, is_empty_or_false, kNotSupported);
  }
  fields.accept_if(
      "priority", is(0), "may only be 0: requests are served in their order of arrival");
  fields.accept_if("spaces_between_special_tokens", is(true), "may only be true");
}

void refuse_unsupported_in_chat(FieldReader& fields) {
  for (const char* name : {"tools", "functions"}) {
    fields.accept_if(
        name, is_empty_or_false, "is not supported: this server offers the model no tools");
  }
  for (const char* name : {"tool_choice", "function_call"}) {
    fields.accept_if(
        name, is("none"), "may only be \"none\": this server offers the model no tools");
  }
  fields.accept("parallel_tool_calls");  // of tools, which are refused
  fields.accept_if("modalities", is(Json::array({"text"})), "may only be [\"text\"]");
  for (const char* name : {"audio",
                           "prediction",
                           "reasoning_effort",
                           "web_search_options",
                           "verbosity",
                           "echo",
                           "continue_final_message",
                           "documents",
                           "chat_template",
                           "add_special_tokens",
                           "media_io_kwargs",
                           "mm_processor_kwargs"}) {
    fields.accept_if(name, is_empty_or_false, kNotSupported);
  }
  fields.accept_if("include_reasoning", is(true), "may only be true");
}

void read_model(FieldReader& fields,
                const ApiContext& context,
                ApiRequest& request,
                ApiError* error) {
  request.model = context.model_names.front();
  std::string model;
  fields.read("model", model);
  if (model.empty()) return;
  if (std::ranges::find(context.model_names, model) == context.model_names.end()) {
    if (!fields.failed()) error->http_status = 404;
    std::string served;
    for (const std::string& name : context.model_names)
      served += (served.empty() ? "" : ", ") + name;
    return fields.fail(
        "model",
        "the model \"" + shortened(model) + "\" is not served here, but " + served + " is");
  }
  request.model = model;
}

void read_stream_options(FieldReader& fields, ApiRequest& request) {
  fields.read("stream", request.stream);
  const Json* options = fields.find("stream_options");
  if (options == nullptr) return;
  if (!request.stream)
    return fields.fail("stream_options", "\"stream_options\" needs \"stream\": true");
  if (!options->is_object())
    return fields.fail("stream_options", "\"stream_options\" must be an object");
  FieldReader inner(*options);
  inner.read("include_usage", request.include_usage);
  inner.read("continuous_usage_stats", request.continuous_usage);
  inner.accept_if("include_obfuscation", is(false), "may only be false");
  if (inner.failed())
    return fields.fail("stream_options", "in \"stream_options\": " + inner.message());
  for (const auto& [key, value] : options->items()) {
    if (std::ranges::find(inner.known(), key) == inner.known().end()) {
      return fields.fail("stream_options",
                         "\"stream_options\" has the unknown field \"" + shortened(key) + "\"");
    }
  }
}

// vLLM's use_beam_search: n beams, the n best answers.
void read_beam_search(FieldReader& fields, const Json& body, SamplingParams& sampling) {
  bool use = false;
  fields.read("use_beam_search", use);
  if (!use) return;
  forget_drawing(sampling);
  if (body.contains("beam_width") && !body["beam_width"].is_null()) return;  // says more
  std::optional<int> n;
  FieldReader(body).read("n", n);
  sampling.beam_width = n.value_or(1);
}

std::vector<std::string> names_in(const Json& body) {
  std::vector<std::string> names;
  for (const auto& [key, value] : body.items()) names.push_back(key);
  return names;
}

// Messages of the engine begin with the field's name, those of a JSON field quote it.
std::string field_of(const std::string& message, const std::vector<std::string>& fields) {
  if (message.starts_with("field \"") || message.starts_with("unknown field \"")) {
    const size_t quote = message.find('"');
    return message.substr(quote + 1, message.find('"', quote + 1) - quote - 1);
  }
  const std::string word = message.substr(0, message.find_first_of(" ,:"));
  return std::ranges::find(fields, word) != fields.end() ? word : "";
}

void refuse(ApiError* error, const Status& status, const Json& body) {
  error->http_status = 400;
  error->message = status.message();
  error->param = field_of(status.message(), names_in(body));
}

// The sampling fields, into `request`, which also has what all prompts share.
bool read_sampling(FieldReader& fields,
                   const Json& body,
                   size_t num_prompts,
                   const ApiContext& context,
                   GenerateRequest& request,
                   ApiError* error) {
  fields.read("cache_salt", request.cache_salt);
  read_beam_search(fields, body, request.sampling);
  if (fields.failed()) {
    error->message = fields.message();
    error->param = fields.failed_field();
    return false;
  }
  Status status = apply_sampling_fields(body, fields.known(), request.sampling, request.output);
  if (status.ok()) status = request.output.validate(request.sampling.n);
  if (status.ok()) status = check_size(request, num_prompts, context);
  if (!status.ok()) refuse(error, status, body);
  return status.ok();
}

// 3 or "text" or [3, 4] or ["text", ...] or [[3, 4], ...].
using TokensOrText = std::variant<std::string, std::vector<TokenId>, ChatPrompt>;

bool is_token(const Json& value) {
  return value.is_number_integer() && value.get<double>() >= 0 && value.get<double>() <= INT32_MAX;
}

std::optional<TokensOrText> one_prompt(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array() || value.empty() || !std::ranges::all_of(value, is_token))
    return std::nullopt;
  return value.get<std::vector<TokenId>>();
}

void read_prompts(FieldReader& fields, std::vector<TokensOrText>* prompts) {
  const Json* value = fields.find("prompt");
  if (value == nullptr) return fields.fail("prompt", "the field \"prompt\" is missing");
  if (auto one = one_prompt(*value)) {
    prompts->push_back(std::move(*one));
    return;
  }
  if (value->is_array() && value->size() > kMaxPromptsOfRequest) {
    return fields.fail("prompt",
                       "\"prompt\" has " + std::to_string(value->size()) +
                           " entries, but at most " + std::to_string(kMaxPromptsOfRequest) +
                           " prompts may stand in one request");
  }
  bool good = value->is_array() && !value->empty();
  for (size_t i = 0; good && i < value->size(); ++i) {
    auto one = one_prompt((*value)[i]);
    good = one.has_value();
    if (good) prompts->push_back(std::move(*one));
  }
  if (good) return;
  fields.fail(
      "prompt",
      "\"prompt\" must be a text, an array of texts, an array of token ids (at least one) or an "
      "array of such arrays");
}

}  // namespace

std::string param_of(const std::string& message, const ApiRequest& request) {
  if (message.starts_with("the prompt")) return request.is_chat ? "messages" : "prompt";
  return field_of(message, request.fields);
}

Result<Json> parse_body(std::string_view body) {
  if (body.empty()) return invalid_argument("the request has no body: send a JSON object");
  QUIRE_RETURN_IF_ERROR(check_json_limits(body));
  QUIRE_ASSIGN_OR_RETURN(Json json, parse_json_document(body));
  if (!json.is_object()) return invalid_argument("the request's body must be a JSON object");
  return json;
}

std::optional<ApiRequest> parse_completion(const Json& body,
                                           const ApiContext& context,
                                           ApiError* error) {
  ApiRequest request;
  GenerateRequest common;
  common.sampling = context.defaults;
  common.sampling.max_tokens = kDefaultCompletionTokens;
  std::vector<TokensOrText> prompts;

  FieldReader fields(body);
  read_model(fields, context, request, error);
  read_prompts(fields, &prompts);
  read_stream_options(fields, request);
  fields.read("echo", request.echo);
  fields.read("return_token_ids", request.return_token_ids);
  fields.accept_if(
      "suffix", is(""), "is not supported: text cannot be put in front of a given end");
  fields.accept_if(
      "add_special_tokens", is(true), "may only be true: send token ids for a prompt without");
  refuse_unsupported(fields);
  if (!read_sampling(fields, body, prompts.size(), context, common, error)) return std::nullopt;

  request.fields = names_in(body);
  SamplingParams& sampling = common.sampling;
  request.logprobs = sampling.logprobs;
  request.prompt_logprobs = sampling.prompt_logprobs;
  // The echoed prompt has log-probabilities like the answer.
  if (request.echo && request.logprobs && !sampling.prompt_logprobs) {
    sampling.prompt_logprobs = request.logprobs;
  }
  for (TokensOrText& prompt : prompts) {
    GenerateRequest one = common;
    one.prompt = std::move(prompt);
    request.prompts.push_back(std::move(one));
  }
  return request;
}

namespace {

void read_chat_logprobs(FieldReader& fields, SamplingParams& sampling) {
  bool wanted = false;
  std::optional<int> top;
  fields.read("logprobs", wanted);
  fields.read("top_logprobs", top);
  if (top.value_or(0) > 0 && !wanted) {
    return fields.fail("top_logprobs", "\"top_logprobs\" needs \"logprobs\": true");
  }
  if (top.value_or(0) < 0) {
    return fields.fail("top_logprobs", "top_logprobs must be >= 0, got " + std::to_string(*top));
  }
  if (wanted) sampling.logprobs = top.value_or(0);
}

// An answer may be as long as the context, unless the request or the model's own file says less.
void read_max_tokens(FieldReader& fields, SamplingParams& sampling) {
  std::optional<int> now, deprecated;
  fields.read("max_completion_tokens", now);
  fields.read("max_tokens", deprecated);
  if (now && deprecated && *now != *deprecated) {
    fields.fail("max_tokens",
                "\"max_tokens\" is " + std::to_string(*deprecated) +
                    " and \"max_completion_tokens\" is " + std::to_string(*now) +
                    ": say one of them");
  }
  if (now || deprecated) sampling.max_tokens = now ? *now : *deprecated;
}

}  // namespace

std::optional<ApiRequest> parse_chat_completion(const Json& body,
                                                const ApiContext& context,
                                                ApiError* error) {
  ApiRequest request;
  request.is_chat = true;
  GenerateRequest chat;
  chat.sampling = context.defaults;

  FieldReader fields(body);
  read_model(fields, context, request, error);
  ChatPrompt prompt = read_chat_prompt(fields, context);
  read_stream_options(fields, request);
  read_chat_logprobs(fields, chat.sampling);
  read_max_tokens(fields, chat.sampling);
  fields.read("return_token_ids", request.return_token_ids);
  refuse_unsupported(fields);
  refuse_unsupported_in_chat(fields);
  if (!read_sampling(fields, body, 1, context, chat, error)) return std::nullopt;
  request.fields = names_in(body);
  request.logprobs = chat.sampling.logprobs;
  request.prompt_logprobs = chat.sampling.prompt_logprobs;
  chat.prompt = std::move(prompt);
  request.prompts.push_back(std::move(chat));
  return request;
}

namespace {

// What stands in no list is refused with the nearest that does.
bool finish(FieldReader& fields, const Json& body, ApiError* error) {
  for (const auto& [key, value] : body.items()) {
    if (fields.failed()) break;
    if (std::ranges::find(fields.known(), key) != fields.known().end()) continue;
    const std::string near = nearest(key, fields.known());
    fields.fail(shortened(key),
                "unknown field \"" + shortened(key) + "\"" +
                    (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
  }
  error->message = fields.message();
  error->param = fields.failed_field();
  return !fields.failed();
}

}  // namespace

std::optional<TokenizeRequest> parse_tokenize(const Json& body,
                                              const ApiContext& context,
                                              ApiError* error) {
  TokenizeRequest request;
  ApiRequest named;
  FieldReader fields(body);
  read_model(fields, context, named, error);
  fields.read("return_token_strs", request.return_token_strs);
  if (body.contains("messages")) {
    request.input = read_chat_prompt(fields, context);
    fields.accept_if("add_special_tokens", is(false), "may only be false with \"messages\"");
  } else {
    std::string prompt;
    if (fields.find("prompt") == nullptr) {
      fields.fail("prompt", "one of the fields \"prompt\" and \"messages\" must be there");
    }
    fields.read("prompt", prompt);
    fields.read("add_special_tokens", request.add_special_tokens);
    request.input = std::move(prompt);
  }
  if (!finish(fields, body, error)) return std::nullopt;
  return request;
}

std::optional<std::vector<TokenId>> parse_detokenize(const Json& body,
                                                     const ApiContext& context,
                                                     ApiError* error) {
  ApiRequest named;
  FieldReader fields(body);
  read_model(fields, context, named, error);
  const Json* tokens = fields.find("tokens");
  const bool good =
      tokens != nullptr && tokens->is_array() && std::ranges::all_of(*tokens, is_token);
  if (!good) fields.fail("tokens", "the field \"tokens\" must be an array of token ids");
  if (!finish(fields, body, error)) return std::nullopt;
  return tokens->get<std::vector<TokenId>>();
}

}  // namespace quire
