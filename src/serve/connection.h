// One client: reads requests, asks the handler, writes its replies. A coroutine in a strand of its
// own, which sleeps at one place and is woken by whatever concerns it: bytes that came or went, the
// reply's Wake, a deadline, the server's end.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "serve/byte_stream.h"
#include "serve/http.h"
#include "serve/server.h"

namespace quire {

// What all connections of a server share.
struct ConnectionShared {
  ServerConfig config;
  HttpHandler handler;
  HttpObserver observer;
  std::atomic<bool> draining{false};
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::any_io_executor strand,
             std::unique_ptr<ByteStream> stream,
             std::string client,
             std::shared_ptr<const ConnectionShared> shared);
  ~Connection();

  void start(std::function<void()> on_end);
  // Any thread: look again at what is shared.
  void nudge();
  // Any thread: after this no Wake reaches the connection, whose io_context may go.
  void detach();

 private:
  using Clock = std::chrono::steady_clock;
  struct WakeLink;
  struct Incoming;  // the parser
  enum class Written { kAll, kStalled, kFailed };

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<bool> handshake();
  boost::asio::awaitable<bool> wait_for_request();
  boost::asio::awaitable<bool> serve_one();
  // Nothing: `request` is whole. Else what to answer before the connection is closed; status 0: it
  // is gone.
  boost::asio::awaitable<std::optional<HttpResponse>> read_request(Incoming& incoming,
                                                                   HttpRequest* request);
  boost::asio::awaitable<bool> refuse(HttpResponse response);
  boost::asio::awaitable<bool> send_reply(
      Reply& reply, bool keep_alive, bool can_chunk, bool without_body, HttpRecord* record);
  boost::asio::awaitable<Written> write(std::string data);
  boost::asio::awaitable<void> linger();

  void start_reading(size_t most);
  void raise();
  boost::asio::awaitable<void> wait_until(Clock::time_point deadline);

  std::unique_ptr<ByteStream> stream_;
  const std::string client_;
  const std::shared_ptr<const ConnectionShared> shared_;
  std::shared_ptr<WakeLink> link_;
  boost::asio::steady_timer alarm_;
  bool raised_ = false;

  std::string inbox_;  // read and not parsed
  std::array<char, 16 << 10> incoming_;
  bool reading_ = false, at_end_ = false;  // the client sends nothing more
  std::string outgoing_;
  bool writing_ = false, write_failed_ = false;
};

}  // namespace quire
