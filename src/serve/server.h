// The HTTP server: sockets on a few threads of its own. What it serves is an HttpHandler.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include "base/status.h"
#include "serve/http.h"

namespace quire {

struct ServerConfig {
  std::string host;                       // empty: every interface
  int port = 8000;                        // 0: any free one
  std::string uds;                        // path of a Unix socket instead
  std::string ssl_certfile, ssl_keyfile;  // PEM; both or none
  int num_threads = 2;
  int max_connections = 10000;
  size_t max_header_bytes = 64 << 10;
  size_t max_body_bytes = 16 << 20;
  // A client that sends no whole request in this time (a body gets a second more for every
  // 64 KiB), or that reads nothing for so long, is dropped.
  std::chrono::milliseconds io_timeout{30'000};
  std::chrono::milliseconds idle_timeout{75'000};  // of a kept-alive connection between requests

  // Names the flag, its value and the remedy.
  Status validate() const;
};

class HttpServer {
 public:
  static Result<std::unique_ptr<HttpServer>> start(ServerConfig config,
                                                   HttpHandler handler,
                                                   HttpObserver observer);
  ~HttpServer();  // cuts every connection

  // "http://127.0.0.1:8000" or "unix:/path".
  const std::string& address() const;
  int port() const;  // 0 for a Unix socket
  // No new connections; idle ones are closed, the others after the answer that they are waiting
  // for.
  void drain();
  int num_connections() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
