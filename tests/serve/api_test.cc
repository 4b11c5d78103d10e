// The routes of the API, over a real socket.
#include "frontend/conversation.h"
#include "serve/routes.h"
#include "serve/test_server.h"

namespace quire {
namespace {

Json completion(const std::string& prompt, int max_tokens) {
  return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
}

GenerateRequest as_run(const std::string& prompt, int max_tokens) {
  GenerateRequest request;
  request.prompt = prompt;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

TEST_F(ServeTest, CompletionIsTheAnswerOfTheLibrary) {
  const HttpAnswer answer = post("/v1/completions", completion("hello world", 12));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json json = answer.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["choices"][0]["text"], text_of(as_run("hello world", 12)));
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_NE(answer.head.find("X-Request-Id: "), std::string::npos);
}

TEST_F(ServeTest, StreamedTextIsTheWholeText) {
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const bool is_chat = std::string(path) != "/v1/completions";
    Json body = completion("hello world", 20);
    if (is_chat) {
      body.erase("prompt");
      body["messages"] = {{{"role", "user"}, {"content", "hello"}}};
    }
    body["n"] = 2;
    body["temperature"] = 0.9;
    body["seed"] = 5;
    const Json whole = post(path, body).json();
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
    const HttpAnswer streamed = post(path, body);
    ASSERT_EQ(streamed.status, 200) << streamed.body;
    EXPECT_NE(streamed.head.find("text/event-stream"), std::string::npos);
    EXPECT_TRUE(streamed.body.ends_with("data: [DONE]\n\n"));
    std::string texts[2];
    std::string reasons[2];
    for (const Json& event : streamed.events()) {
      for (const Json& choice : event["choices"]) {
        const int index = choice["index"];
        texts[index] +=
            is_chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
        if (!choice["finish_reason"].is_null()) reasons[index] = choice["finish_reason"];
      }
    }
    EXPECT_EQ(streamed.events().back()["usage"]["completion_tokens"],
              whole["usage"]["completion_tokens"]);
    for (int i = 0; i < 2; ++i) {
      const Json& choice = whole["choices"][i];
      EXPECT_EQ(texts[i], is_chat ? choice["message"]["content"] : choice["text"]);
      EXPECT_EQ(reasons[i], choice["finish_reason"]);
    }
    EXPECT_NE(texts[0], texts[1]);
  }
}

TEST_F(ServeTest, SamePromptAgainGivesTheSameAnswerFromTheCache) {
  const Json body = completion("the same prompt, word by word, twice", 8);
  const Json first = post("/v1/completions", body).json();
  const Json second = post("/v1/completions", body).json();
  EXPECT_EQ(first["choices"], second["choices"]);
  EXPECT_GT(second["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(ServeTest, PromptsMayBeTextsTokensAndListsOfThem) {
  const Json tokens = post("/tokenize", {{"prompt", "hello world"}}).json()["tokens"];
  Json body = completion("hello world", 6);
  const Json text = post("/v1/completions", body).json();
  body["prompt"] = tokens;
  EXPECT_EQ(post("/v1/completions", body).json()["choices"], text["choices"]);
  body["prompt"] = Json::array({tokens, tokens});
  EXPECT_EQ(post("/v1/completions", body).json()["choices"][1]["text"], text["choices"][0]["text"]);
  body["prompt"] = {"hello world", "other"};
  const Json both = post("/v1/completions", body).json();
  ASSERT_EQ(both["choices"].size(), 2u);
  EXPECT_EQ(both["choices"][0]["text"], text["choices"][0]["text"]);
  EXPECT_EQ(both["choices"][1]["index"], 1);
}

TEST_F(ServeTest, EchoAndLogprobsCoverPromptAndAnswer) {
  Json body = completion("hello world", 3);
  body["echo"] = true;
  body["logprobs"] = 2;
  const Json choice = post("/v1/completions", body).json()["choices"][0];
  EXPECT_TRUE(choice["text"].get<std::string>().starts_with("hello world"));
  const Json& logprobs = choice["logprobs"];
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_LT(logprobs["token_logprobs"][1], 0);
  EXPECT_EQ(logprobs["tokens"].size(), logprobs["token_logprobs"].size());
  EXPECT_EQ(logprobs["text_offset"][0], 0);
}

TEST_F(ServeTest, ChatLogprobsHaveTheAlternatives) {
  const Json body = {{"messages", {{{"role", "user"}, {"content", "hello"}}}},
                     {"max_tokens", 3},
                     {"ignore_eos", true},
                     {"temperature", 0},
                     {"logprobs", true},
                     {"top_logprobs", 2}};
  const Json content =
      post("/v1/chat/completions", body).json()["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["token"], content[0]["top_logprobs"][0]["token"]);
}

TEST_F(ServeTest, BeamSearchGivesItsBestAnswersWithScores) {
  Json body = completion("hello world", 4);
  body.erase("temperature");
  body["use_beam_search"] = true;
  body["n"] = 2;
  const Json json = post("/v1/completions", body).json();
  ASSERT_EQ(json["choices"].size(), 2u) << json;
  EXPECT_GE(json["choices"][0]["score"], json["choices"][1]["score"]);
}

TEST_F(ServeTest, PartsOfTextAreOneText) {
  Json body = {
      {"messages",
       {{{"role", "developer"}, {"content", "s"}}, {{"role", "user"}, {"content", "a\nb"}}}},
      {"max_tokens", 4},
      {"temperature", 0},
      {"return_token_ids", true}};
  const Json plain = post("/v1/chat/completions", body).json();
  const auto part = [](const char* text) { return Json{{"type", "text"}, {"text", text}}; };
  body["messages"] = {{{"role", "system"}, {"content", "s"}},
                      {{"role", "user"}, {"content", Json::array({part("a"), part("b")})}}};
  EXPECT_EQ(post("/v1/chat/completions", body).json()["choices"], plain["choices"]);
}

TEST_F(ServeTest, WhatIsNotSupportedIsRefusedByName) {
  struct Case {
    Json field;
    const char* param;
    const char* said;
  };
  const Case cases[] = {
      {{{"temprature", 1}}, "temprature", "did you mean \"temperature\""},
      {{{"tools", {{{"type", "function"}}}}}, "tools", "tools"},
      {{{"response_format", {{"type", "json_object"}}}}, "response_format", "format"},
      {{{"guided_json", {{"type", "object"}}}}, "guided_json", "format"},
      {{{"temperature", "hot"}}, "temperature", "must be a number"},
      {{{"top_p", 7}}, "top_p", "top_p must be"},
      {{{"n", 100}}, "n", "max_num_seqs"},
      {{{"model", "gpt-4"}}, "model", "gpt-4"},
      {{{"stream_options", {{"include_usage", true}}}}, "stream_options", "stream"},
      {{{"top_logprobs", 3}}, "top_logprobs", "logprobs"},
      {{{"logprobs", true}, {"top_logprobs", 1000}}, "", "1000"},
      {{{"stop", Json::array({""})}}, "stop", "stop"},
      {{{"messages", Json::array()}}, "messages", "at least one"},
      {{{"messages", {{{"role", "tool"}, {"content", "x"}}}}}, "messages[0].role", "tool"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}},
       "messages[0].content",
       "image_url"},
  };
  for (const Case& c : cases) {
    Json body = {{"messages", {{{"role", "user"}, {"content", "x"}}}}, {"max_tokens", 1}};
    body.update(c.field);
    const HttpAnswer answer = post("/v1/chat/completions", body);
    EXPECT_EQ(answer.status, std::string(c.param) == "model" ? 404 : 400) << body;
    const Json error = answer.json()["error"];
    EXPECT_EQ(error["code"], answer.status);
    EXPECT_NE(error["message"].get<std::string>().find(c.said), std::string::npos) << error;
    if (*c.param != '\0') {
      EXPECT_EQ(error["param"], c.param) << error;
    }
  }
}

TEST_F(ServeTest, MalformedBodiesAreRefused) {
  Client client(server_->port());
  for (const std::string& body : {std::string(),
                                  std::string("{"),
                                  std::string("[]"),
                                  std::string("\xff\xfe"),
                                  std::string(100000, '['),
                                  std::string("{\"prompt\": \"\\ud800\"}")}) {
    client.send(post_bytes("/v1/completions", body));
    EXPECT_EQ(client.read().status, 400) << body.substr(0, 20);
  }
  EXPECT_EQ(client.get("/health").status, 200);  // the same connection still serves
}

TEST_F(ServeTest, PromptBeyondTheContextIsRefusedWithTheNumbers) {
  Json body = completion("x", 1);
  body["prompt"] = std::vector<int>(100000, 3);
  const HttpAnswer answer = post("/v1/completions", body);
  EXPECT_EQ(answer.status, 400);
  EXPECT_NE(answer.body.find("100000"), std::string::npos) << answer.body;
}

TEST_F(ServeTest, SmallRoutesAnswer) {
  EXPECT_EQ(get("/v1/models").json()["data"][1]["id"], "other-name");
  EXPECT_EQ(get("/v1/models/tiny").json()["id"], "tiny");
  EXPECT_EQ(get("/v1/models/none").status, 404);
  EXPECT_EQ(get("/version").json()["version"], "1.2.3");
  EXPECT_EQ(get("/load").json()["server_load"], 0);
  EXPECT_EQ(get("/ping").status, 200);
  EXPECT_EQ(get("/health").json()["status"], "ok");
  const Json tokens =
      post("/tokenize", {{"prompt", "hello"}, {"add_special_tokens", false}}).json();
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(post("/detokenize", {{"tokens", tokens["tokens"]}}).json()["prompt"], "hello");
  EXPECT_EQ(post("/detokenize", {{"tokens", {1 << 30}}}).status, 400);
  EXPECT_NE(get("/v1/completion").body.find("did you mean /v1/completions"), std::string::npos);
  const HttpAnswer wrong = get("/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_NE(wrong.head.find("Allow: POST"), std::string::npos);
}

TEST_F(ServeTest, MetricsHaveVllmsNames) {
  ASSERT_EQ(post("/v1/completions", completion("count me", 5)).status, 200);
  const std::string text = get("/metrics").body;
  for (const char* name : {"num_requests_running",
                           "num_requests_waiting",
                           "kv_cache_usage_perc",
                           "num_preemptions_total",
                           "prefix_cache_queries_total",
                           "prefix_cache_hits_total",
                           "prompt_tokens_total",
                           "prompt_tokens_cached_total",
                           "prompt_tokens_by_source_total",
                           "generation_tokens_total",
                           "request_success_total",
                           "time_to_first_token_seconds",
                           "inter_token_latency_seconds",
                           "request_time_per_output_token_seconds",
                           "e2e_request_latency_seconds",
                           "request_queue_time_seconds",
                           "request_inference_time_seconds",
                           "request_prefill_time_seconds",
                           "request_decode_time_seconds",
                           "request_prompt_tokens",
                           "request_generation_tokens",
                           "request_max_num_generation_tokens",
                           "request_params_max_tokens",
                           "request_params_n",
                           "request_prefill_kv_computed_tokens"}) {
    EXPECT_NE(text.find("# TYPE vllm:" + std::string(name) + " "), std::string::npos) << name;
  }
  EXPECT_EQ(service_->metrics.names().size(), 25u);  // none beside those
  EXPECT_NE(text.find("vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_"
                      "name=\"tiny\"} 1"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("vllm:request_generation_tokens_sum{engine=\"0\",model_name=\"tiny\"} 5"),
            std::string::npos);
}

}  // namespace
}  // namespace quire
