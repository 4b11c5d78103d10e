// Text that users send must be UTF-8: what is not is refused with its place, never repaired.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace quire {

// Offset of the first byte that is not part of a well-formed UTF-8 sequence (no overlong forms, no
// surrogates, at most U+10FFFF); text.size() when there is none.
size_t valid_utf8_prefix(std::string_view text);

// kInvalidArgument with the offset and the byte; `what` names the text ("the prompt").
Status check_utf8(std::string_view text, const std::string& what);

// For messages: `text`, or its first characters, at most `most` bytes of them, and "...".
std::string shortened(std::string_view text, size_t most = 80);

}  // namespace quire
