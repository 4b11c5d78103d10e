#include "serve/test_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace quire {

namespace {

constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

}  // namespace

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

std::vector<Json> HttpAnswer::events() const {
  std::vector<Json> events;
  constexpr std::string_view kData = "data: ";
  for (size_t at = 0; (at = body.find(kData, at)) != std::string::npos;) {
    const size_t end = body.find("\n\n", at);
    const std::string text = body.substr(at + kData.size(), end - at - kData.size());
    if (text != "[DONE]") events.push_back(Json::parse(text, nullptr, false));
    at = end;
  }
  return events;
}

Client::Client(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval patience{.tv_sec = kPatience.count(), .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}
Client::~Client() { close(); }
void Client::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void Client::send(const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<size_t>(n);
  }
}

std::string Client::read_some() {
  char bytes[4096];
  const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
  return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : "";
}

HttpAnswer Client::read() {
  HttpAnswer answer;
  const auto more = [&] {
    const std::string bytes = read_some();
    buffer_ += bytes;
    return !bytes.empty();
  };
  size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!more()) return answer;
  }
  answer.head = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  answer.status = std::stoi(answer.head.substr(9, 3));
  const size_t length_at = answer.head.find("Content-Length: ");
  if (length_at != std::string::npos) {
    const size_t length = std::stoul(answer.head.substr(length_at + 16));
    while (buffer_.size() < length && more()) {
    }
    answer.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return answer;
  }
  while (true) {  // chunks
    size_t line = 0;
    while ((line = buffer_.find("\r\n")) == std::string::npos) {
      if (!more()) return answer;
    }
    const size_t size = std::stoul(buffer_.substr(0, line), nullptr, 16);
    while (buffer_.size() < line + 2 + size + 2) {
      if (!more()) return answer;
    }
    answer.body += buffer_.substr(line + 2, size);
    buffer_.erase(0, line + 2 + size + 2);
    if (size == 0) return answer;
  }
}

std::string post_bytes(const std::string& path,
                       const std::string& body,
                       const std::string& headers) {
  return "POST " + path + " HTTP/1.1\r\nHost: test\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

HttpAnswer Client::post(const std::string& path, const Json& body, const std::string& headers) {
  send(post_bytes(path, body.dump(), headers));
  return read();
}

HttpAnswer Client::get(const std::string& path, const std::string& headers) {
  send("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + headers + "\r\n");
  return read();
}

Llm* ServeTest::llm_ = nullptr;

void ServeTest::SetUpTestSuite() {
  const auto file = std::filesystem::temp_directory_path() /
                    ("quire_serve_template_" + std::to_string(getpid()) + ".jinja");
  std::ofstream(file) << kChatMl;
  EngineConfig engine;
  engine.kv_cache_memory_bytes = 4 << 20;
  engine.num_threads = 1;
  engine.block_size = 4;
  engine.max_num_seqs = 4;
  engine.max_num_queued_reqs = 4;
  Result<std::unique_ptr<Llm>> llm = Llm::load({.model = QUIRE_TESTDATA "/golden/tiny/llama_gqa",
                                                .engine = engine,
                                                .chat_template_file = file});
  std::filesystem::remove(file);
  ASSERT_TRUE(llm.ok()) << llm.status().message();
  llm_ = std::move(*llm).release();
}
void ServeTest::TearDownTestSuite() {
  delete llm_;
  llm_ = nullptr;
}

void ServeTest::start(ServerConfig server, AccessConfig access, ServiceConfig service) {
  server_.reset();
  service.model_names = {"tiny", "other-name"};
  service.version = "1.2.3";
  service_ = std::make_unique<Service>(llm_, service);
  application_ = std::make_unique<Application>(*service_, std::move(access));
  server.host = "127.0.0.1";
  server.port = 0;
  Result<std::unique_ptr<HttpServer>> started = HttpServer::start(
      server,
      [app = application_.get()](HttpRequest request, Wake wake) {
        return app->handle(std::move(request), std::move(wake));
      },
      [](const HttpRecord&) {});
  ASSERT_TRUE(started.ok()) << started.status().message();
  server_ = std::move(*started);
}

HttpAnswer ServeTest::post(const std::string& path, const Json& body) {
  return Client(server_->port()).post(path, body);
}
HttpAnswer ServeTest::get(const std::string& path) { return Client(server_->port()).get(path); }

std::string ServeTest::text_of(GenerateRequest request) {
  Result<TextStream> stream = llm_->submit(std::move(request));
  EXPECT_TRUE(stream.ok()) << stream.status().message();
  std::string text;
  while (std::optional<TextDelta> delta = stream->next()) text += delta->text;
  return text;
}

}  // namespace quire
