// Everything quire serve answers: the routes, and what stands before them all (API keys, CORS,
// request ids).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/http.h"
#include "serve/service.h"

namespace quire {

// What browsers may do from pages of other origins; nothing by default.
struct CorsConfig {
  std::vector<std::string> origins;  // "*": any
  std::vector<std::string> methods = {"*"}, headers = {"*"};
  bool allow_credentials = false;
};

struct AccessConfig {
  std::vector<std::string> api_keys;  // none: open to all
  CorsConfig cors;
};

class Application {
 public:
  Application(Service& service, AccessConfig access)
      : service_(&service), access_(std::move(access)) {}

  // Any thread. Never waits.
  std::unique_ptr<Reply> handle(HttpRequest request, Wake wake) const;

 private:
  std::unique_ptr<Reply> answer(HttpRequest& request, Wake wake) const;

  Service* service_;
  const AccessConfig access_;
};

// Whether `given` is one of `keys`, in a time that does not tell how much of it was right.
bool is_one_of_keys(std::string_view given, const std::vector<std::string>& keys);

}  // namespace quire
