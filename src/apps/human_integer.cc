#include "apps/human_integer.h"

#include <CLI/CLI.hpp>
#include <charconv>
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

CLI::Validator human_integer() {
  return CLI::Validator(
      [](std::string& text) {
        const Result<int64_t> value = parse_human_integer(text);
        if (!value.ok()) return value.status().message();
        text = std::to_string(*value);
        return std::string();
      },
      "INT");
}

CLI::Validator integer_in(int64_t least, int64_t most) {
  return CLI::Validator(
      [least, most](std::string& text) {
        int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool whole = error == std::errc() && end == text.data() + text.size();
        if (whole && value >= least && value <= most) return std::string();
        return "\"" + text + "\" is not a whole number from " + std::to_string(least) + " to " +
               std::to_string(most);
      },
      "INT");
}

}  // namespace quire
