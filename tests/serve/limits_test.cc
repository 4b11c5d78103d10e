// What a request may cost the server before it is refused.
#include <thread>

#include "serve/request_size.h"
#include "serve/test_server.h"

namespace quire {
namespace {

class LimitsTest : public ServeTest {
 protected:
  // Refused with 400; the message has each of `parts`.
  void expect_refused(const std::string& bytes, const std::vector<std::string>& parts) {
    Client client(server_->port());
    client.send(bytes);
    const HttpAnswer answer = client.read();
    ASSERT_EQ(answer.status, 400) << answer.body.substr(0, 500);
    const std::string message = answer.json()["error"]["message"];
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << message << " lacks " << part;
    }
    EXPECT_LT(answer.body.size(), 1000u);
  }
  void expect_refused(const Json& body, const std::vector<std::string>& parts) {
    expect_refused(post_bytes("/v1/completions", body.dump()), parts);
  }
};

TEST_F(LimitsTest, HugeNumberOfAnswersIsRefusedBeforeAnythingIsMadeForThem) {
  for (const char* name : {"n", "best_of", "beam_width"}) {
    expect_refused({{"prompt", "x"}, {"temperature", 1}, {name, 2000000000}},
                   {std::string(name) + " is 2000000000", "max_num_seqs is 4"});
  }
}

TEST_F(LimitsTest, HugeNumberOfBeamsIsRefusedBeforeAnythingIsMadeForThem) {
  expect_refused({{"prompt", "x"}, {"use_beam_search", true}, {"n", 2000000000}},
                 {"is 2000000000", "max_num_seqs is 4"});
}

TEST(RequestSizeTest, PromptsTimesAnswersAreBounded) {
  const ApiContext context{.max_num_seqs = 5000, .vocab_size = 1};
  GenerateRequest request;
  request.sampling.n = 4;
  EXPECT_TRUE(check_size(request, 1024, context).ok());
  EXPECT_NE(check_size(request, 1025, context).message().find("4100 answers, but at most 4096"),
            std::string::npos);
  request.sampling.n = 5000;
  EXPECT_TRUE(check_size(request, 1, context).ok()) << "--max-num-seqs allows it";
}

TEST_F(LimitsTest, ListsOfTokensAreBounded) {
  const int most = llm_->tokenizer().vocab_size();
  for (const char* name : {"allowed_token_ids", "banned_token_ids", "stop_token_ids"}) {
    Json body = {{"prompt", "x"}, {name, std::vector<int>(most + 1, 3)}};
    expect_refused(
        body, {name, std::to_string(most + 1) + " entries", "at most " + std::to_string(most)});
  }
}

TEST_F(LimitsTest, StopTextsTimesAnswersAreBounded) {
  Json body = {{"prompt", Json::array()}, {"stop", Json::array()}, {"max_tokens", 1}};
  for (int i = 0; i < 1024; ++i) body["prompt"].push_back("x");
  for (int i = 0; i < 64; ++i) body["stop"].push_back(std::string(4096, 'x'));
  expect_refused(body, {"stop", "268435456 bytes", "at most 16777216"});
}

TEST_F(LimitsTest, ListsTimesAnswersAreBounded) {
  const int vocab_size = llm_->tokenizer().vocab_size();
  Json body = {{"prompt", Json::array()}, {"n", 4}, {"temperature", 1}, {"max_tokens", 1}};
  for (int i = 0; i < 1024; ++i) body["prompt"].push_back("x");
  for (const char* name : {"allowed_token_ids", "banned_token_ids", "stop_token_ids"})
    body[name] = std::vector<int>(vocab_size, 3);
  for (int i = 0; i < vocab_size; ++i) body["logit_bias"][std::to_string(i)] = 0;
  expect_refused(body, {std::to_string(int64_t{vocab_size} * 4 * 4096), "at most 4194304"});
}

TEST_F(LimitsTest, CacheSaltIsBounded) {
  expect_refused({{"prompt", "x"}, {"cache_salt", std::string(5000, 's')}},
                 {"cache_salt", "5000 bytes", "at most 1024"});
}

TEST_F(LimitsTest, ObjectOfManyKeysIsRefusedBeforeItIsBuilt) {
  std::string body = "{\"prompt\": \"x\", \"logit_bias\": {\"0\": 0";
  for (int i = 1; i < 400000; ++i) body += ",\"" + std::to_string(i) + "\":0";
  const auto start = std::chrono::steady_clock::now();
  expect_refused(post_bytes("/v1/completions", body + "}}"), {"object", "1024"});
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST_F(LimitsTest, ManyObjectsAndValuesAreRefused) {
  std::string keys = "{\"a\": [{}";
  for (int i = 0; i < 70000; ++i) keys += ",{\"a\":0}";
  expect_refused(post_bytes("/v1/completions", keys + "]}"), {"keys in all", "65536"});
  std::string values = "{\"a\": [0";
  for (int i = 0; i < 2100000; ++i) values += ",0";
  expect_refused(post_bytes("/v1/completions", values + "]}"), {"values", "2097152"});
  expect_refused(post_bytes("/v1/completions",
                            "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"),
                 {"nested", "64"});
}

TEST_F(LimitsTest, LongUnknownFieldIsNamedInShort) {
  const std::string key(1 << 20, 'k');
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/tokenize"}) {
    const Json body = {
        {"prompt", "x"}, {"messages", {{{"role", "user"}, {"content", "x"}}}}, {key, 1}};
    const auto start = std::chrono::steady_clock::now();
    expect_refused(post_bytes(path, body.dump()), {});
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << path;
  }
  expect_refused({{"prompt", "x"}, {"temperature", std::string(1 << 20, 'v')}}, {"temperature"});
  expect_refused({{"prompt", "x"}, {"stream", true}, {"stream_options", {{key, 1}}}}, {"unknown"});
  const HttpAnswer answer = post("/v1/completions", {{"prompt", "x"}, {"model", key}});
  EXPECT_EQ(answer.status, 404);
  EXPECT_LT(answer.body.size(), 1000u);
}

}  // namespace
}  // namespace quire
