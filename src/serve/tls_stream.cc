#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "serve/byte_stream.h"

namespace quire {

namespace {

namespace ssl = boost::asio::ssl;

class TlsStream : public ByteStream {
 public:
  TlsStream(StreamSocket socket, ssl::context& context) : stream_(std::move(socket), context) {}

  void handshake(Done done) override {
    stream_.async_handshake(ssl::stream_base::server,
                            [done = std::move(done)](boost::system::error_code e) { done(e, 0); });
  }
  void read_some(boost::asio::mutable_buffer buffer, Done done) override {
    stream_.async_read_some(buffer, std::move(done));
  }
  void write_all(boost::asio::const_buffer buffer, Done done) override {
    boost::asio::async_write(stream_, buffer, std::move(done));
  }
  void finish_writing(Done done) override {
    stream_.async_shutdown([done = std::move(done)](boost::system::error_code e) { done(e, 0); });
  }
  void close() override {
    boost::system::error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  ssl::stream<StreamSocket> stream_;
};

class OpenSslContext : public TlsContext {
 public:
  OpenSslContext() : context_(ssl::context::tls_server) {}
  std::unique_ptr<ByteStream> wrap(StreamSocket socket) override {
    return std::make_unique<TlsStream>(std::move(socket), context_);
  }
  Status read(const std::string& certfile, const std::string& keyfile) {
    boost::system::error_code error;
    context_.set_options(
        ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1,
        error);
    context_.use_certificate_chain_file(certfile, error);
    if (error) {
      return invalid_argument("--ssl-certfile " + certfile +
                              " cannot be read as a PEM certificate chain: " + error.message());
    }
    context_.use_private_key_file(keyfile, ssl::context::pem, error);
    if (error) {
      return invalid_argument("--ssl-keyfile " + keyfile +
                              " cannot be read as the PEM private key of --ssl-certfile " +
                              certfile + ": " + error.message());
    }
    return {};
  }

 private:
  ssl::context context_;
};

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::load(const std::string& certfile,
                                                     const std::string& keyfile) {
  auto context = std::make_shared<OpenSslContext>();
  QUIRE_RETURN_IF_ERROR(context->read(certfile, keyfile));
  return std::shared_ptr<TlsContext>(std::move(context));
}

}  // namespace quire
