#include "frontend/json.h"

#include <nlohmann/json.hpp>

#include "frontend/utf8.h"

namespace quire {
namespace {

// Depth of the deepest array or object; brackets inside strings do not count.
int nesting_depth(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<Json> parse_json_document(std::string_view text) {
  QUIRE_RETURN_IF_ERROR(check_utf8(text, "the JSON text"));
  if (const int depth = nesting_depth(text); depth > kMaxJsonDepth) {
    return invalid_argument("JSON nested " + std::to_string(depth) + " deep; at most " +
                            std::to_string(kMaxJsonDepth) + " levels are allowed");
  }
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    // nlohmann's text names its own place and exception first: "[...] parse error at ...: what".
    const std::string what = error.what();
    const size_t colon = what.find(": ");
    return invalid_argument("invalid JSON at byte " + std::to_string(error.byte) + ": " +
                            (colon == std::string::npos ? what : what.substr(colon + 2)));
  } catch (const Json::exception& error) {
    return invalid_argument(std::string("invalid JSON: ") + error.what());
  }
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace quire
