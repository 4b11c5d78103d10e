#include "serve/request_id.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <random>

namespace quire {

std::string new_request_id() {
  std::random_device device;
  char text[33];
  for (int i = 0; i < 4; ++i)
    std::snprintf(text + 8 * i, 9, "%08x", static_cast<unsigned>(device()));
  return text;
}

std::string request_id_of(std::string_view wanted) {
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("-_.:").find(c) != std::string_view::npos;
  };
  const bool good = !wanted.empty() && wanted.size() <= 128 && std::ranges::all_of(wanted, allowed);
  return good ? std::string(wanted) : new_request_id();
}

}  // namespace quire
