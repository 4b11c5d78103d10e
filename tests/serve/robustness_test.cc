// What clients and operators do to a server.
#include <thread>

#include "base/monitor.h"
#include "serve/access_log.h"
#include "serve/test_server.h"

namespace quire {
namespace {

// Runs until somebody ends it: as long as the context allows.
Json endless(bool stream) {
  return {{"prompt", "hello"},
          {"max_tokens", 100000},
          {"temperature", 0},
          {"ignore_eos", true},
          {"stream", stream}};
}

class RobustnessTest : public ServeTest {
 protected:
  // Nobody is served, and every block is free or cached.
  bool is_idle() const {
    const EngineStats stats = llm_->stats();
    return service_->in_flight.count() == 0 && stats.num_running == 0 && stats.num_waiting == 0 &&
           stats.num_used_blocks == 0;
  }
};

// Holds the engine's thread in a step, until it is destroyed.
class StuckEngine {
 public:
  explicit StuckEngine(Llm* llm) {
    GenerateRequest request;
    request.prompt = "hello";
    request.sampling.max_tokens = 1;
    request.logits_tap = [state = state_](int, std::span<const float>) {
      state->update([](State& s) { s.reached = true; });
      state->wait([](const State& s) { return s.released; }, [](State&) {});
    };
    Result<TextStream> stream = llm->submit(std::move(request));
    EXPECT_TRUE(stream.ok());
    stream_.emplace(std::move(*stream));
    state_->wait([](const State& s) { return s.reached; }, [](State&) {});
  }
  ~StuckEngine() {
    state_->update([](State& s) { s.released = true; });
    while (stream_->next()) {
    }
  }

 private:
  struct State {
    bool reached = false, released = false;
  };
  std::shared_ptr<Monitor<State>> state_ = std::make_shared<Monitor<State>>();
  std::optional<TextStream> stream_;
};

TEST_F(RobustnessTest, ClientThatGoesAwayFreesItsBlocks) {
  for (const bool stream : {true, false}) {
    Client client(server_->port());
    client.send(post_bytes("/v1/completions", endless(stream).dump()));
    ASSERT_TRUE(eventually([&] { return service_->in_flight.count() == 1; }));
    client.close();
    EXPECT_TRUE(eventually([&] { return is_idle(); })) << "stream " << stream;
  }
}

TEST_F(RobustnessTest, FullQueueIsRefusedWithItsLength) {
  // 4 run, 4 wait; the model is so small that answers end soon: some of many are refused.
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->send(post_bytes("/v1/completions", endless(false).dump()));
  }
  int refused = 0, answered = 0;
  for (const auto& client : clients) {
    const HttpAnswer answer = client->read();
    answered += answer.status == 200;
    if (answer.status != 429) continue;
    ++refused;
    EXPECT_NE(answer.head.find("Retry-After: 1"), std::string::npos);
    EXPECT_TRUE(answer.json()["error"].contains("queue_length"));
  }
  EXPECT_EQ(refused + answered, 64);
  EXPECT_GT(refused, 0);
  EXPECT_GT(answered, 0);
  EXPECT_TRUE(eventually([&] { return is_idle(); }));
}

TEST_F(RobustnessTest, LimitsOfHeaderAndBody) {
  ServerConfig config;
  config.max_header_bytes = 2048;
  config.max_body_bytes = 4096;
  start(config, {});
  Client long_header(server_->port());
  long_header.send("GET /health HTTP/1.1\r\nX-Long: " + std::string(5000, 'x') + "\r\n\r\n");
  EXPECT_EQ(long_header.read().status, 431);
  Client long_body(server_->port());
  long_body.send(post_bytes("/v1/completions", std::string(5000, ' ')));
  const HttpAnswer answer = long_body.read();
  EXPECT_EQ(answer.status, 413);
  EXPECT_NE(answer.body.find("--max-body-bytes"), std::string::npos);
}

TEST_F(RobustnessTest, GarbageIsNotHttp) {
  for (const std::string& bytes : {std::string("GARBAGE\r\n\r\n"),
                                   std::string("\0\1\2\3\r\n\r\n", 8),
                                   std::string("GET / HTTP/9.9\r\n\r\n")}) {
    Client client(server_->port());
    client.send(bytes);
    EXPECT_EQ(client.read().status, 400);
    EXPECT_EQ(client.read_some(), "");  // and the connection ends
  }
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(RobustnessTest, SlowRequestIsDropped) {
  ServerConfig config;
  config.io_timeout = std::chrono::milliseconds(100);
  start(config, {});
  Client client(server_->port());
  client.send("GET /health HT");
  EXPECT_EQ(client.read().status, 408);
}

TEST_F(RobustnessTest, ConnectionServesManyRequestsAlsoPipelined) {
  Client client(server_->port());
  const std::string request = "GET /version HTTP/1.1\r\nHost: test\r\n\r\n";
  client.send(request + request + request);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.read().status, 200);
  client.send("GET /version HTTP/1.1\r\nConnection: close\r\n\r\n");
  EXPECT_NE(client.read().head.find("Connection: close"), std::string::npos);
  EXPECT_EQ(client.read_some(), "");
}

TEST_F(RobustnessTest, StopStringsAndRequestIdsAreTheClients) {
  Client client(server_->port());
  EXPECT_NE(
      client.get("/version", "X-Request-Id: my-id_1\r\n").head.find("X-Request-Id: my-id_1\r\n"),
      std::string::npos);
  EXPECT_EQ(client.get("/version", "X-Request-Id: \"evil\"\r\n").head.find("evil"),
            std::string::npos);
}

TEST_F(RobustnessTest, ApiKeysGuardAllButHealth) {
  start({}, {.api_keys = {"first", "second"}});
  Client client(server_->port());
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/ping").status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/version", "/load", "/nowhere"}) {
    EXPECT_EQ(client.get(path).status, 401) << path;
    EXPECT_EQ(client.get(path, "Authorization: Bearer firs\r\n").status, 401) << path;
    EXPECT_EQ(client.get(path, "Authorization: Bearer firstx\r\n").status, 401) << path;
  }
  EXPECT_EQ(client.get("/v1/models", "Authorization: Bearer second\r\n").status, 200);
  EXPECT_EQ(client.get("/v1/models", "authorization: bearer first\r\n").status, 200);
}

TEST_F(RobustnessTest, OtherOriginsHaveNoAccessUnlessAllowed) {
  Client closed(server_->port());
  EXPECT_EQ(closed.get("/version", "Origin: https://a.example\r\n").head.find("Access-Control"),
            std::string::npos);
  start({}, {.cors = {.origins = {"https://a.example"}}});
  Client client(server_->port());
  EXPECT_NE(client.get("/version", "Origin: https://a.example\r\n")
                .head.find("Access-Control-Allow-Origin: https://a.example"),
            std::string::npos);
  EXPECT_EQ(client.get("/version", "Origin: https://b.example\r\n").head.find("Access-Control"),
            std::string::npos);
  client.send(
      "OPTIONS /v1/models HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: "
      "GET\r\n\r\n");
  EXPECT_EQ(client.read().status, 204);
}

TEST_F(RobustnessTest, DrainEndsWhatRunsAndTakesNothingNew) {
  Client running(server_->port()), idle(server_->port());
  EXPECT_EQ(idle.get("/version").status, 200);
  running.send(post_bytes("/v1/completions", endless(true).dump()));
  std::string answer = running.read_some();
  ASSERT_FALSE(answer.empty());
  service_->draining = true;
  server_->drain();
  EXPECT_EQ(idle.read_some(), "");
  for (std::string bytes; !(bytes = running.read_some()).empty();) answer += bytes;
  EXPECT_NE(answer.find("data: [DONE]"), std::string::npos);
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
}

TEST_F(RobustnessTest, StoppingCutsWhatRuns) {
  Client client(server_->port());
  client.send(post_bytes("/v1/completions", endless(false).dump()));
  ASSERT_TRUE(eventually([&] { return service_->in_flight.count() == 1; }));
  server_.reset();
  EXPECT_TRUE(eventually([&] { return is_idle(); }));
}

TEST_F(RobustnessTest, ClientThatGoesAwayIsNoticedWhileTheEngineIsBusy) {
  for (const bool stream : {true, false}) {
    StuckEngine stuck(llm_);
    Client client(server_->port());
    client.send(post_bytes("/v1/completions", endless(stream).dump()));
    ASSERT_TRUE(eventually([&] { return service_->in_flight.count() == 1; }));
    client.close();
    EXPECT_TRUE(eventually([&] { return service_->in_flight.count() == 0; }))
        << "stream " << stream;
  }
  EXPECT_TRUE(eventually([&] { return is_idle(); }));
}

TEST_F(RobustnessTest, HealthTellsThatTheEngineIsStuck) {
  start({}, {}, {.stall_timeout = std::chrono::seconds(1)});
  Client client(server_->port());
  {
    StuckEngine stuck(llm_);
    client.send(post_bytes("/v1/completions", R"({"prompt": "x", "max_tokens": 1})"));
    EXPECT_TRUE(eventually([&] { return get("/health").status == 503; }));
    EXPECT_GT(get("/health").json()["oldest_request_seconds"], 1);
  }
  EXPECT_EQ(client.read().status, 200);
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(RobustnessTest, ManyStreamsAtOnceAreEachWhole) {
  const std::string expected =
      post("/v1/completions", {{"prompt", "a b c"}, {"max_tokens", 16}, {"temperature", 0}})
          .json()["choices"][0]["text"];
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Client client(server_->port());
      for (int round = 0; round < 8; ++round) {
        const HttpAnswer answer = client.post(
            "/v1/completions",
            {{"prompt", "a b c"}, {"max_tokens", 16}, {"temperature", 0}, {"stream", true}});
        std::string text;
        for (const Json& event : answer.events())
          text += event["choices"][0]["text"].get<std::string>();
        good += text == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 32);
}

TEST(AccessLogTest, NothingThatAClientSendsBreaksTheLine) {
  const HttpRecord record{.id = "1",
                          .client = "c",
                          .method = "GET",
                          .path = "/a b\"\n=x",
                          .status = 404,
                          .outcome = "ok"};
  const std::string line = access_log_line(record, std::chrono::system_clock::time_point());
  EXPECT_NE(line.find("path=\"/a b\\\"\\x0a=x\" status=404"), std::string::npos) << line;
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
}

TEST(ApiKeyTest, OnlyWholeKeysMatch) {
  EXPECT_TRUE(is_one_of_keys("abc", {"x", "abc"}));
  EXPECT_FALSE(is_one_of_keys("ab", {"abc"}));
  EXPECT_FALSE(is_one_of_keys("abcabc", {"abc"}));
  EXPECT_FALSE(is_one_of_keys("", {"abc"}));
  EXPECT_FALSE(is_one_of_keys("", {}));
}

}  // namespace
}  // namespace quire
