// Small files as one string.
#pragma once

#include <string>

#include "base/status.h"

namespace quire {

// The whole of a file, a pipe or, for "-", standard input. `what` names it in the error: "the
// prompt". A folder is refused with a message of its own.
Result<std::string> read_whole_file(const std::string& path, const std::string& what);

}  // namespace quire
