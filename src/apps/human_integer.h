// Integers as people write them: 512, 8k = 8000, 8K = 8192, 1.5G, 2GiB.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace quire {

// Lower-case suffixes k m g t are powers of 1000, upper-case K M G T (and Ki, KiB, ...) powers of
// 1024.
Result<int64_t> parse_human_integer(const std::string& text);

}  // namespace quire
