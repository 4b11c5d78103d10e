// What a JSON text may hold before a document is made of it.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/status.h"

namespace quire {

// A document's objects are searched from their first key on, so that many keys in one cost the
// square of their number: both that number and all keys together are bounded.
inline constexpr size_t kMaxKeysOfObject = 1024, kMaxKeysInAll = 65536;
inline constexpr size_t kMaxJsonValues = 2 << 20;

// Refuses what exceeds a limit (kMaxJsonDepth, too), naming it. Nothing is kept of the text. What
// is no JSON passes: the parser says what is wrong with it.
Status check_json_limits(std::string_view text);

}  // namespace quire
