// A server on a tiny model behind a real socket, and a client that says exactly what a test wants.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "serve/application.h"
#include "serve/server.h"

namespace quire {

inline constexpr std::chrono::seconds kPatience{60};  // bounds a failure, on a busy machine
bool eventually(const std::function<bool()>& condition);

struct HttpAnswer {
  int status = 0;  // 0: the connection ended before
  std::string head, body;
  Json json() const { return Json::parse(body, nullptr, false); }
  // The JSON events of a stream; [DONE] is not one.
  std::vector<Json> events() const;
};

// One TCP connection.
class Client {
 public:
  explicit Client(int port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  void send(const std::string& bytes);
  HttpAnswer read();
  // The next bytes, as they come; empty at the end.
  std::string read_some();
  void close();
  HttpAnswer post(const std::string& path, const Json& body, const std::string& headers = "");
  HttpAnswer get(const std::string& path, const std::string& headers = "");

 private:
  int fd_;
  std::string buffer_;
};

std::string post_bytes(const std::string& path,
                       const std::string& body,
                       const std::string& headers = "");

class ServeTest : public testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override { start({}, {}); }

  // Anew, with other settings; the model stays.
  void start(ServerConfig server, AccessConfig access, ServiceConfig service = {});
  HttpAnswer post(const std::string& path, const Json& body);
  HttpAnswer get(const std::string& path);
  // The text of a quire run with this request.
  static std::string text_of(GenerateRequest request);

  static Llm* llm_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Application> application_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace quire
