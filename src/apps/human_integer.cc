#include "apps/human_integer.h"

#include <cmath>
#include <cstdlib>

namespace quire {

Result<int64_t> parse_human_integer(const std::string& text) {
  const Status bad =
      invalid_argument("\"" + text + "\" is not a number: write 512, 8k (8000), 8K (8192) or 2GiB");
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !std::isfinite(number)) return bad;
  std::string suffix = end;
  double unit = 1;
  if (!suffix.empty()) {
    const std::string decimal = "kmgt", binary = "KMGT";
    const size_t small = decimal.find(suffix[0]), large = binary.find(suffix[0]);
    if (small != std::string::npos && suffix.size() == 1) {
      unit = std::pow(1000.0, small + 1);
    } else if (large != std::string::npos &&
               (suffix.size() == 1 || suffix.substr(1) == "i" || suffix.substr(1) == "iB")) {
      unit = std::pow(1024.0, large + 1);
    } else {
      return bad;
    }
  }
  const double value = number * unit;
  if (std::abs(value) > 9e18 || value != std::floor(value)) return bad;
  return static_cast<int64_t>(value);
}

}  // namespace quire
