#include "serve/connection.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <utility>

#include "serve/api_error.h"
#include "serve/request_id.h"

// GCC 12 lays out the frame of a coroutine wrongly (and the program crashes) when a condition holds
// a co_await: here each one is a statement of its own.
namespace quire {

namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

// Read while a reply is on its way: a pipelined request. Beyond that the client must wait, and that
// it went away shows in the next write.
constexpr size_t kMostReadAhead = 64 << 10;
constexpr size_t kMostLingeringBytes = 1 << 20;
constexpr std::chrono::seconds kLingerTime{1};
constexpr size_t kSlowestBytesPerSecond = 64 << 10;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace

// What a Wake holds: the way to the connection while there is one.
// It never holds the connection itself: whoever wakes it must not be the one who destroys it.
struct Connection::WakeLink : std::enable_shared_from_this<Connection::WakeLink> {
  std::mutex mutex;
  Connection* connection = nullptr;  // guarded by mutex

  void wake() {
    std::lock_guard lock(mutex);
    if (connection == nullptr) return;
    asio::post(connection->alarm_.get_executor(), [link = shared_from_this()] {
      std::lock_guard lock(link->mutex);
      if (link->connection != nullptr) link->connection->raise();
    });
  }
};

struct Connection::Incoming {
  http::request_parser<http::string_body> parser;
};

Connection::Connection(asio::any_io_executor strand,
                       std::unique_ptr<ByteStream> stream,
                       std::string client,
                       std::shared_ptr<const ConnectionShared> shared)
    : stream_(std::move(stream)),
      client_(std::move(client)),
      shared_(std::move(shared)),
      link_(std::make_shared<WakeLink>()),
      alarm_(strand) {
  link_->connection = this;
}

Connection::~Connection() { detach(); }

void Connection::detach() {
  std::lock_guard lock(link_->mutex);
  link_->connection = nullptr;
}

void Connection::nudge() { link_->wake(); }

void Connection::start(std::function<void()> on_end) {
  auto self = shared_from_this();
  asio::co_spawn(
      alarm_.get_executor(),
      [self]() { return self->run(); },
      [self, on_end = std::move(on_end)](std::exception_ptr) {
        // An exception is memory that ran out: this client is given up, the others go on.
        self->stream_->close();
        on_end();
      });
}

void Connection::raise() {
  raised_ = true;
  alarm_.cancel();
}

asio::awaitable<void> Connection::wait_until(Clock::time_point deadline) {
  if (!raised_) {
    alarm_.expires_at(deadline);
    boost::system::error_code ignored;
    co_await alarm_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  raised_ = false;
}

// One read is always under way while the client may say something: that is how its end is noticed.
void Connection::start_reading(size_t most) {
  if (reading_ || at_end_ || inbox_.size() >= most) return;
  reading_ = true;
  stream_->read_some(asio::buffer(incoming_),
                     [self = shared_from_this()](boost::system::error_code error, size_t size) {
                       self->reading_ = false;
                       self->inbox_.append(self->incoming_.data(), size);
                       self->at_end_ |= static_cast<bool>(error);
                       self->raise();
                     });
}

asio::awaitable<Connection::Written> Connection::write(std::string data) {
  outgoing_ = std::move(data);
  writing_ = true;
  stream_->write_all(asio::buffer(outgoing_),
                     [self = shared_from_this()](boost::system::error_code error, size_t) {
                       self->writing_ = false;
                       self->write_failed_ |= static_cast<bool>(error);
                       self->raise();
                     });
  const auto deadline = Clock::now() + shared_->config.io_timeout +
                        std::chrono::seconds(outgoing_.size() / kSlowestBytesPerSecond);
  bool stalled = false;
  while (writing_) {
    co_await wait_until(deadline);
    if (!writing_ || Clock::now() < deadline) continue;
    stalled = true;
    stream_->close();
    while (writing_) co_await wait_until(Clock::time_point::max());
  }
  co_return stalled ? Written::kStalled : write_failed_ ? Written::kFailed : Written::kAll;
}

asio::awaitable<bool> Connection::handshake() {
  bool done = false, good = false;
  stream_->handshake([&, self = shared_from_this()](boost::system::error_code error, size_t) {
    done = true;
    good = !error;
    self->raise();
  });
  const auto deadline = Clock::now() + shared_->config.io_timeout;
  while (!done) {
    co_await wait_until(deadline);
    if (!done && Clock::now() >= deadline) stream_->close();
  }
  co_return good;
}

asio::awaitable<void> Connection::run() {
  const bool is_open = co_await handshake();
  if (!is_open) co_return;
  for (bool goes_on = true; goes_on;) {
    goes_on = co_await wait_for_request();
    if (goes_on) goes_on = co_await serve_one();
  }
  co_await linger();
}

// Until the first byte of a request; false when there will be none.
asio::awaitable<bool> Connection::wait_for_request() {
  const auto deadline = Clock::now() + shared_->config.idle_timeout;
  while (inbox_.empty()) {
    if (at_end_ || shared_->draining || Clock::now() >= deadline) co_return false;
    start_reading(kMostReadAhead);
    co_await wait_until(deadline);
  }
  co_return true;
}

// An orderly end: what was written reaches a client that is still sending, because its bytes are
// read for a moment, not answered with a reset.
asio::awaitable<void> Connection::linger() {
  auto finished = std::make_shared<bool>(false);
  stream_->finish_writing([self = shared_from_this(), finished](boost::system::error_code, size_t) {
    *finished = true;
    self->raise();
  });
  const auto deadline = Clock::now() + kLingerTime;
  size_t dropped = 0;
  while ((!at_end_ || !*finished) && Clock::now() < deadline && dropped < kMostLingeringBytes) {
    dropped += inbox_.size();
    inbox_.clear();
    start_reading(kMostReadAhead);
    co_await wait_until(deadline);
  }
  stream_->close();
}

namespace {

HttpResponse refusal_of(boost::system::error_code error, const ServerConfig& config) {
  if (error == http::error::header_limit) {
    return error_response(431,
                          "the request's header is longer than " +
                              std::to_string(config.max_header_bytes) +
                              " bytes (--h11-max-incomplete-event-size)");
  }
  if (error == http::error::body_limit) {
    return error_response(413,
                          "the request's body is longer than " +
                              std::to_string(config.max_body_bytes) +
                              " bytes: send less, or start the server with a higher "
                              "--max-body-bytes");
  }
  return error_response(400, "this is not HTTP/1.1: " + error.message());
}

void take_over(http::request<http::string_body>& message, HttpRequest* request) {
  request->method = std::string(message.method_string());
  const std::string_view target(message.target().data(), message.target().size());
  request->path = std::string(target.substr(0, target.find('?')));
  for (const auto& field : message) {
    const auto name = field.name_string();
    const auto value = field.value();
    request->headers.emplace_back(lower({name.data(), name.size()}),
                                  std::string(value.data(), value.size()));
  }
  request->body = std::move(message.body());
  request->id = request_id_of(request->header("x-request-id"));
}

}  // namespace

asio::awaitable<std::optional<HttpResponse>> Connection::read_request(Incoming& incoming,
                                                                      HttpRequest* request) {
  auto& parser = incoming.parser;
  const ServerConfig& config = shared_->config;
  parser.header_limit(static_cast<std::uint32_t>(config.max_header_bytes));
  parser.body_limit(config.max_body_bytes);
  parser.eager(true);
  auto deadline = Clock::now() + config.io_timeout;
  bool saw_header = false, stuck = false;
  const HttpResponse gone{.status = 0};
  while (true) {
    if (!inbox_.empty() && !stuck) {
      boost::system::error_code error;
      inbox_.erase(0, parser.put(asio::buffer(inbox_), error));
      if (error && error != http::error::need_more) co_return refusal_of(error, config);
      if (parser.is_done()) break;
      stuck = true;  // until more has come
      continue;
    }
    if (parser.is_header_done() && !saw_header) {
      saw_header = true;
      const uint64_t length = parser.content_length().value_or(config.max_body_bytes);
      deadline += std::chrono::seconds(length / kSlowestBytesPerSecond);
      if (parser.get()[http::field::expect] == "100-continue") {
        const Written written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
        if (written != Written::kAll) co_return gone;
      }
    }
    if (at_end_) co_return gone;
    if (Clock::now() >= deadline) {
      co_return error_response(408,
                               "the request was not complete after " +
                                   std::to_string(config.io_timeout.count() / 1000) + " s");
    }
    const size_t before = inbox_.size();
    start_reading(config.max_header_bytes + kMostReadAhead);
    co_await wait_until(deadline);
    if (inbox_.size() != before) stuck = false;
  }
  take_over(parser.get(), request);
  co_return std::nullopt;
}

// What is not HTTP has no route: answered here, and the connection ends.
asio::awaitable<bool> Connection::refuse(HttpResponse response) {
  if (response.status == 0) co_return false;
  HttpRecord record{.id = request_id_of(""),
                    .client = client_,
                    .method = "-",
                    .path = "-",
                    .status = response.status,
                    .outcome = "ok",
                    .bytes = response.body.size()};
  response.headers.emplace_back("X-Request-Id", record.id);
  std::string bytes = http_head(response, false, false) + response.body;
  const Written written = co_await write(std::move(bytes));
  if (written != Written::kAll) record.outcome = "disconnected";
  shared_->observer(record);
  co_return false;
}

// False: the connection ends.
asio::awaitable<bool> Connection::serve_one() {
  Incoming incoming;
  HttpRequest request;
  std::optional<HttpResponse> refused = co_await read_request(incoming, &request);
  if (refused) {
    const bool goes_on = co_await refuse(std::move(*refused));
    co_return goes_on;
  }

  const auto start = Clock::now();
  const bool keep_alive = incoming.parser.get().keep_alive();
  const bool can_chunk = incoming.parser.get().version() >= 11;
  const bool without_body = request.method == "HEAD";
  HttpRecord record{.id = request.id,
                    .client = client_,
                    .method = request.method,
                    .path = request.path,
                    .outcome = "cut"};
  // Also when the server stops in the middle and this coroutine is dropped.
  struct Report {
    const Connection* connection;
    Clock::time_point start;
    HttpRecord* record;
    std::unique_ptr<Reply> reply;
    ~Report() {
      if (reply) record->fields = reply->log_fields();
      record->seconds = std::chrono::duration<double>(Clock::now() - start).count();
      connection->shared_->observer(*record);
    }
  } report{this, start, &record, nullptr};
  report.reply = shared_->handler(std::move(request), [link = link_] { link->wake(); });
  const bool goes_on =
      co_await send_reply(*report.reply, keep_alive, can_chunk, without_body, &record);
  co_return goes_on;
}

asio::awaitable<bool> Connection::send_reply(
    Reply& reply, bool keep_alive, bool can_chunk, bool without_body, HttpRecord* record) {
  bool chunked = false;
  while (true) {
    ReplyPart part = reply.poll();
    std::string bytes;
    if (part.head) {
      HttpResponse& head = *part.head;
      chunked = head.streams && can_chunk;
      keep_alive = keep_alive && (!head.streams || chunked) && !shared_->draining;
      record->status = head.status;
      bytes = http_head(head, keep_alive, chunked);
      if (!without_body) bytes += head.body;
      record->bytes += head.body.size();
    }
    record->bytes += part.body.size();
    if (chunked) {
      append_chunk(part.body, &bytes);
      if (part.ended) bytes += kLastChunk;
    } else {
      bytes += part.body;
    }
    if (!bytes.empty()) {
      const Written written = co_await write(std::move(bytes));
      if (written != Written::kAll) {
        record->outcome = written == Written::kStalled ? "stalled" : "disconnected";
        co_return false;
      }
    }
    if (part.ended) {
      record->outcome = "ok";
      co_return keep_alive && !at_end_;
    }
    if (at_end_) {
      record->outcome = "disconnected";
      co_return false;
    }
    start_reading(kMostReadAhead);
    // What came during a write has been seen by no poll() yet.
    if (!part.head && part.body.empty()) co_await wait_until(Clock::time_point::max());
  }
}

}  // namespace quire
