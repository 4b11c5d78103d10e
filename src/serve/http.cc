#include "serve/http.h"

#include <cstdio>

namespace quire {

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

namespace {

class ReadyReply : public Reply {
 public:
  explicit ReadyReply(HttpResponse response) : response_(std::move(response)) {}
  ReplyPart poll() override { return {.head = std::move(response_), .ended = true}; }

 private:
  HttpResponse response_;
};

}  // namespace

std::unique_ptr<Reply> reply_with(HttpResponse response) {
  return std::make_unique<ReadyReply>(std::move(response));
}

const char* http_reason(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

std::string http_head(const HttpResponse& response, bool keep_alive, bool chunked) {
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " " +
                     http_reason(response.status) + "\r\nServer: quire\r\n";
  const auto add = [&](std::string_view name, std::string_view value) {
    head.append(name).append(": ").append(value).append("\r\n");
  };
  if (response.streams || !response.body.empty()) add("Content-Type", response.content_type);
  if (!response.streams) {
    add("Content-Length", std::to_string(response.body.size()));
  } else if (chunked) {
    add("Transfer-Encoding", "chunked");
  }
  add("Connection", keep_alive ? "keep-alive" : "close");
  for (const auto& [name, value] : response.headers) add(name, value);
  return head + "\r\n";
}

void append_chunk(std::string_view data, std::string* out) {
  if (data.empty()) return;
  char size[24];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  out->append(size).append(data).append("\r\n");
}

}  // namespace quire
