// HTTP as the routes see it: plain values, no socket. A route answers with a Reply, which the
// connection polls and writes; so routes are tested without a network, and none of them waits.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quire {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // upper case
  std::string path;    // without the query, as sent
  HttpHeaders headers;
  std::string body;
  std::string id;  // X-Request-Id: the client's or a new one

  // Of the first header of this name (lower case), or "".
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  HttpHeaders headers = {};
  std::string body = {};
  std::string content_type = "application/json";
  bool streams = false;  // the body follows in parts
};

struct ReplyPart {
  std::optional<HttpResponse> head;  // exactly once, first
  std::string body;                  // of a stream, after its head
  bool ended = false;
};

// An answer on its way. Polled by one thread at a time; its destructor ends the work behind it.
class Reply {
 public:
  virtual ~Reply() = default;
  // What has come since the last call, perhaps nothing. Never waits: Wake is called when there is
  // more.
  virtual ReplyPart poll() = 0;
  // For the request's line in the log: keys and values.
  virtual HttpHeaders log_fields() const { return {}; }
};

// Tells the connection to poll again. Any thread may call it, also after the connection is gone.
using Wake = std::function<void()>;
using HttpHandler = std::function<std::unique_ptr<Reply>(HttpRequest, Wake)>;

// A reply that is there already.
std::unique_ptr<Reply> reply_with(HttpResponse response);

// What became of a request, for the log.
struct HttpRecord {
  std::string id, client, method, path;
  int status = 0;       // 0: the client went away before there was one
  const char* outcome;  // "ok", "disconnected", "stalled" (did not read), "cut" (server stopped)
  size_t bytes = 0;     // of the body written
  double seconds = 0;
  HttpHeaders fields;
};
using HttpObserver = std::function<void(const HttpRecord&)>;

// --- The bytes of HTTP/1.1 ---

const char* http_reason(int status);
// Status line and headers, to the empty line. A stream is `chunked`, or ends with the connection.
std::string http_head(const HttpResponse& response, bool keep_alive, bool chunked);
// Appends `data` as one chunk; nothing for no data, which would end the body.
void append_chunk(std::string_view data, std::string* out);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace quire
