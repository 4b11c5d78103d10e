// The routes by method and path.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/http.h"
#include "serve/service.h"

namespace quire {

struct RouteName {
  const char* method;
  const char* path;
};
// Of all routes, for the documentation's test.
std::vector<RouteName> route_names();

// What is none of them is answered 404, or 405 with the methods that the path has.
std::unique_ptr<Reply> route(Service& service, HttpRequest& request, Wake wake);

}  // namespace quire
