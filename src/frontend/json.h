// JSON documents to build, edit and print: key order kept, depth bounded, no exception escapes.
// (Checkpoints are read with base/json.h, which cannot write.)
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace quire {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;

// The error names the byte offset. Invalid UTF-8 and values nested deeper than kMaxJsonDepth are
// refused.
Result<Json> parse_json_document(std::string_view text);
// Compact for indent < 0. Invalid UTF-8 in a string becomes U+FFFD.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace quire
