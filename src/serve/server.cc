#include "serve/server.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "serve/connection.h"

namespace quire {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using Local = asio::local::stream_protocol;
using ErrorCode = boost::system::error_code;

Status ServerConfig::validate() const {
  const auto refuse = [](const std::string& what) { return invalid_argument(what); };
  if (port < 0 || port > 65535) {
    return refuse("--port is " + std::to_string(port) + ", but must be in [0, 65535]");
  }
  if (uds.size() >= sizeof(sockaddr_un::sun_path)) {
    return refuse("--uds is " + std::to_string(uds.size()) +
                  " bytes long, but a Unix socket's path holds " +
                  std::to_string(sizeof(sockaddr_un::sun_path) - 1) + ": choose a shorter one");
  }
  if (ssl_certfile.empty() != ssl_keyfile.empty()) {
    return refuse("--ssl-certfile and --ssl-keyfile belong together: give both or none");
  }
  if (num_threads < 1 || num_threads > 256) {
    return refuse("--http-threads is " + std::to_string(num_threads) + ", but must be in [1, 256]");
  }
  if (max_connections < 1) {
    return refuse("--max-connections is " + std::to_string(max_connections) + ", but must be >= 1");
  }
  if (max_header_bytes < 1024 || max_header_bytes > 64 << 20) {
    return refuse("--h11-max-incomplete-event-size is " + std::to_string(max_header_bytes) +
                  ", but must be in [1024, 67108864]");
  }
  if (max_body_bytes < 1024 || max_body_bytes > size_t{1} << 40) {
    return refuse("--max-body-bytes is " + std::to_string(max_body_bytes) +
                  ", but must be in [1024, 1099511627776]");
  }
  return {};
}

struct HttpServer::Impl {
  explicit Impl(std::shared_ptr<ConnectionShared> s)
      : shared(std::move(s)),
        io(shared->config.num_threads),
        accept_strand(asio::make_strand(io)) {}
  ~Impl();

  Status listen();
  Status listen_tcp();
  Status listen_uds();
  void run();
  template <class Acceptor>
  asio::awaitable<void> accept_from(Acceptor* acceptor);
  void open(StreamSocket socket, std::string client);

  const std::shared_ptr<ConnectionShared> shared;
  std::shared_ptr<TlsContext> tls;
  asio::io_context io;
  asio::strand<asio::io_context::executor_type> accept_strand;
  std::optional<Tcp::acceptor> tcp;
  std::optional<Local::acceptor> local;
  std::string address;
  int port = 0;
  std::vector<std::thread> threads;

  mutable std::mutex mutex;
  std::map<uint64_t, std::weak_ptr<Connection>> connections;  // guarded by mutex
  uint64_t num_opened = 0;                                    // guarded by mutex
};

namespace {

std::string describe(const Tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + host + "]" : host) + ":" +
         std::to_string(endpoint.port());
}

Status cannot_listen(const std::string& where, const ErrorCode& error) {
  return unavailable("cannot listen on " + where + ": " + error.message());
}

// Each connection is a file: as many as the system lets this process have.
void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Status HttpServer::Impl::listen_tcp() {
  const ServerConfig& config = shared->config;
  ErrorCode error;
  std::vector<Tcp::endpoint> candidates;
  if (config.host.empty()) {
    const auto port = static_cast<uint16_t>(config.port);
    candidates = {Tcp::endpoint(Tcp::v6(), port), Tcp::endpoint(Tcp::v4(), port)};
  } else {
    Tcp::resolver resolver(io);
    for (const auto& found : resolver.resolve(
             config.host, std::to_string(config.port), Tcp::resolver::passive, error)) {
      candidates.push_back(found.endpoint());
    }
    if (candidates.empty()) {
      return invalid_argument("--host " + config.host +
                              " is no address of this machine: " + error.message());
    }
  }
  for (const Tcp::endpoint& endpoint : candidates) {
    tcp.emplace(accept_strand);
    ErrorCode ignored;
    tcp->open(endpoint.protocol(), error);
    if (!error) tcp->set_option(asio::socket_base::reuse_address(true), ignored);
    if (!error && endpoint.address().is_v6() && config.host.empty()) {
      tcp->set_option(asio::ip::v6_only(false), ignored);
    }
    if (!error) tcp->bind(endpoint, error);
    if (!error) tcp->listen(asio::socket_base::max_listen_connections, error);
    if (!error) break;
  }
  if (error) {
    return cannot_listen(
               (config.host.empty() ? "port " : config.host + ":") + std::to_string(config.port),
               error)
        .with_context("--port");
  }
  const Tcp::endpoint endpoint = tcp->local_endpoint(error);
  port = endpoint.port();
  address = (tls ? "https://" : "http://") +
            (config.host.empty() ? "0.0.0.0:" + std::to_string(port) : describe(endpoint));
  return {};
}

Status HttpServer::Impl::listen_uds() {
  const std::string& path = shared->config.uds;
  // A socket that a server left behind; one that answers belongs to a running server.
  struct stat info{};
  ErrorCode error;
  if (lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) {
    Local::socket probe(io);
    probe.connect(Local::endpoint(path), error);
    if (!error) {
      return unavailable("--uds " + path + " is in use by another server");
    }
    unlink(path.c_str());
  }
  error.clear();
  local.emplace(accept_strand);
  local->open(Local(), error);
  if (!error) local->bind(Local::endpoint(path), error);
  if (!error) local->listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    local.reset();
    return cannot_listen(path, error).with_context("--uds");
  }
  address = "unix:" + path;
  return {};
}

Status HttpServer::Impl::listen() {
  const ServerConfig& config = shared->config;
  if (!config.ssl_certfile.empty()) {
    QUIRE_ASSIGN_OR_RETURN(tls, TlsContext::load(config.ssl_certfile, config.ssl_keyfile));
  }
  return config.uds.empty() ? listen_tcp() : listen_uds();
}

namespace {

std::string client_name(const Tcp::endpoint& peer) { return describe(peer); }
std::string client_name(const Local::endpoint&) { return "unix"; }

void prepare(Tcp::socket& socket) {
  ErrorCode ignored;
  socket.set_option(Tcp::no_delay(true), ignored);  // every token goes out at once
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
}
void prepare(Local::socket&) {}

}  // namespace

template <class Acceptor>
asio::awaitable<void> HttpServer::Impl::accept_from(Acceptor* acceptor) {
  using Protocol = typename Acceptor::protocol_type;
  while (acceptor->is_open()) {
    ErrorCode error;
    typename Protocol::endpoint peer;
    typename Protocol::socket socket(asio::make_strand(io));
    co_await acceptor->async_accept(socket, peer, asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // no files left, a client that is gone already: go on, but do not spin
      asio::steady_timer pause(accept_strand, std::chrono::milliseconds(50));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    prepare(socket);
    open(StreamSocket(std::move(socket)), client_name(peer));
  }
}

void HttpServer::Impl::open(StreamSocket socket, std::string client) {
  const asio::any_io_executor strand = socket.get_executor();
  auto stream = tls ? tls->wrap(std::move(socket)) : make_plain_stream(std::move(socket));
  std::shared_ptr<Connection> connection;
  uint64_t number = 0;
  {
    std::lock_guard lock(mutex);
    if (static_cast<int>(connections.size()) >= shared->config.max_connections) return;  // closed
    connection = std::make_shared<Connection>(strand, std::move(stream), std::move(client), shared);
    number = num_opened++;
    connections.emplace(number, connection);
  }
  connection->start([this, number] {
    std::lock_guard lock(mutex);
    connections.erase(number);
  });
}

void HttpServer::Impl::run() {
  if (tcp) asio::co_spawn(accept_strand, accept_from(&*tcp), asio::detached);
  if (local) asio::co_spawn(accept_strand, accept_from(&*local), asio::detached);
  for (int i = 0; i < shared->config.num_threads; ++i) {
    threads.emplace_back([this] { io.run(); });
  }
}

HttpServer::Impl::~Impl() {
  io.stop();
  for (std::thread& thread : threads) thread.join();
  // Whoever wakes a connection from now on finds none; then `io` drops all of them.
  std::vector<std::shared_ptr<Connection>> open;
  {
    std::lock_guard lock(mutex);
    for (const auto& [number, connection] : connections) {
      if (auto strong = connection.lock()) open.push_back(std::move(strong));
    }
  }
  for (const auto& connection : open) connection->detach();
  open.clear();
  if (local) unlink(shared->config.uds.c_str());
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::start(ServerConfig config,
                                                      HttpHandler handler,
                                                      HttpObserver observer) {
  QUIRE_RETURN_IF_ERROR(config.validate());
  raise_file_limit();
  auto shared = std::make_shared<ConnectionShared>();
  shared->config = std::move(config);
  shared->handler = std::move(handler);
  shared->observer = std::move(observer);
  auto impl = std::make_unique<Impl>(std::move(shared));
  QUIRE_RETURN_IF_ERROR(impl->listen());
  impl->run();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

const std::string& HttpServer::address() const { return impl_->address; }
int HttpServer::port() const { return impl_->port; }

void HttpServer::drain() {
  impl_->shared->draining = true;
  asio::post(impl_->accept_strand, [impl = impl_.get()] {
    ErrorCode ignored;
    if (impl->tcp) impl->tcp->close(ignored);
    if (impl->local) impl->local->close(ignored);
  });
  std::lock_guard lock(impl_->mutex);
  for (const auto& [number, connection] : impl_->connections) {
    if (auto strong = connection.lock()) strong->nudge();
  }
}

int HttpServer::num_connections() const {
  std::lock_guard lock(impl_->mutex);
  return static_cast<int>(impl_->connections.size());
}

}  // namespace quire
