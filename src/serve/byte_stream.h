// A connected socket, plain or with TLS. Used within one strand; completions run there, too.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"

namespace quire {

using StreamSocket = boost::asio::generic::stream_protocol::socket;

class ByteStream {
 public:
  using Done = std::function<void(boost::system::error_code, size_t)>;
  virtual ~ByteStream() = default;
  // Before all else.
  virtual void handshake(Done done) = 0;
  // At most one of each at a time; the memory belongs to the caller, who keeps it until then.
  virtual void read_some(boost::asio::mutable_buffer buffer, Done done) = 0;
  virtual void write_all(boost::asio::const_buffer buffer, Done done) = 0;
  // Nothing more will be written; the other side sees the end.
  virtual void finish_writing(Done done) = 0;
  virtual void close() = 0;  // pending operations end with an error
};

std::unique_ptr<ByteStream> make_plain_stream(StreamSocket socket);

// Certificate and key of a server.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> load(const std::string& certfile,
                                                  const std::string& keyfile);
  virtual ~TlsContext() = default;
  virtual std::unique_ptr<ByteStream> wrap(StreamSocket socket) = 0;
};

}  // namespace quire
