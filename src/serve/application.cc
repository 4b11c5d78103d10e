#include "serve/application.h"

#include <algorithm>
#include <utility>

#include "serve/api_error.h"
#include "serve/routes.h"

namespace quire {

bool is_one_of_keys(std::string_view given, const std::vector<std::string>& keys) {
  unsigned found = 0;
  for (const std::string& key : keys) {
    unsigned difference = given.size() != key.size();
    for (size_t i = 0; i < given.size(); ++i) {
      const char of_key = key.empty() ? '\0' : key[i % key.size()];
      difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(of_key);
    }
    found |= difference == 0;
  }
  return found != 0;
}

namespace {

// Adds headers to whatever is answered.
class WithHeaders : public Reply {
 public:
  WithHeaders(std::unique_ptr<Reply> reply, HttpHeaders headers)
      : reply_(std::move(reply)), headers_(std::move(headers)) {}
  ReplyPart poll() override {
    ReplyPart part = reply_->poll();
    if (part.head) {
      part.head->headers.insert(part.head->headers.end(), headers_.begin(), headers_.end());
    }
    return part;
  }
  HttpHeaders log_fields() const override { return reply_->log_fields(); }

 private:
  std::unique_ptr<Reply> reply_;
  const HttpHeaders headers_;
};

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// Empty when the origin has no access, or the request no origin.
HttpHeaders cors_headers(const HttpRequest& request, const CorsConfig& cors) {
  const std::string origin(request.header("origin"));
  const auto listed = [&](const char* what) {
    return std::ranges::find(cors.origins, what) != cors.origins.end();
  };
  if (origin.empty() || !(listed("*") || listed(origin.c_str()))) return {};
  const bool any = listed("*") && !cors.allow_credentials;
  HttpHeaders headers = {{"Access-Control-Allow-Origin", any ? "*" : origin}};
  if (!any) headers.emplace_back("Vary", "Origin");
  if (cors.allow_credentials) headers.emplace_back("Access-Control-Allow-Credentials", "true");
  if (request.method != "OPTIONS") return headers;
  // With credentials "*" means nothing: what is asked for is what is allowed.
  const auto allowed = [&](const std::vector<std::string>& list, const char* asked) {
    const bool all = list == std::vector<std::string>{"*"};
    return all && !request.header(asked).empty() ? std::string(request.header(asked)) : join(list);
  };
  headers.emplace_back("Access-Control-Allow-Methods",
                       allowed(cors.methods, "access-control-request-method"));
  headers.emplace_back("Access-Control-Allow-Headers",
                       allowed(cors.headers, "access-control-request-headers"));
  headers.emplace_back("Access-Control-Max-Age", "600");
  return headers;
}

bool has_key(const HttpRequest& request, const std::vector<std::string>& keys) {
  constexpr std::string_view kBearer = "bearer ";
  const std::string_view header = request.header("authorization");
  const bool is_bearer =
      header.size() >= kBearer.size() &&
      std::equal(kBearer.begin(), kBearer.end(), header.begin(), [](char a, char b) {
        return a == (b | 0x20);
      });
  return is_bearer && is_one_of_keys(header.substr(kBearer.size()), keys);
}

}  // namespace

std::unique_ptr<Reply> Application::handle(HttpRequest request, Wake wake) const {
  HttpHeaders headers = cors_headers(request, access_.cors);
  headers.emplace_back("X-Request-Id", request.id);
  std::unique_ptr<Reply> reply;
  if (request.method == "OPTIONS" && headers.size() > 1) {
    reply = reply_with({.status = 204});
  } else {
    reply = answer(request, std::move(wake));
  }
  return std::make_unique<WithHeaders>(std::move(reply), std::move(headers));
}

std::unique_ptr<Reply> Application::answer(HttpRequest& request, Wake wake) const {
  const bool is_open = request.path == "/health" || request.path == "/ping";
  if (!is_open && !access_.api_keys.empty() && !has_key(request, access_.api_keys)) {
    HttpResponse refused =
        error_response(401, "a valid API key is needed: send it as \"Authorization: Bearer KEY\"");
    refused.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply_with(std::move(refused));
  }
  return route(*service_, request, std::move(wake));
}

}  // namespace quire
