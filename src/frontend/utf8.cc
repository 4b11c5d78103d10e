#include "frontend/utf8.h"

#include <cstdint>
#include <cstdio>

namespace quire {
namespace {

// Length of the sequence that starts at text[i], 0 when it is not well-formed. (The Unicode
// Standard, table 3-7: only the second byte's range depends on the first byte.)
size_t sequence_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t at) {
    return at < text.size() ? static_cast<uint8_t>(text[at]) : uint8_t{0};
  };
  const auto within = [&](size_t at, int low, int high) {
    return byte(at) >= low && byte(at) <= high;
  };
  const uint8_t first = byte(i);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  if (first < 0xE0) return within(i + 1, 0x80, 0xBF) ? 2 : 0;
  const int low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const int high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (!within(i + 1, low, high) || !within(i + 2, 0x80, 0xBF)) return 0;
  if (first < 0xF0) return 3;
  return within(i + 3, 0x80, 0xBF) ? 4 : 0;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = sequence_length(text, i);
    if (length == 0) return i;
    i += length;
  }
  return i;
}

Status check_utf8(std::string_view text, const std::string& what) {
  const size_t valid = valid_utf8_prefix(text);
  if (valid == text.size()) return {};
  char byte[8];
  std::snprintf(byte, sizeof byte, "0x%02x", static_cast<uint8_t>(text[valid]));
  return invalid_argument(what + " is not valid UTF-8 at byte " + std::to_string(valid) + " (" +
                          byte + "): convert it to UTF-8 first");
}

std::string shortened(std::string_view text, size_t most) {
  if (text.size() <= most) return std::string(text);
  size_t end = most;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not in the middle of a character
  return std::string(text.substr(0, end)) + "...";
}

}  // namespace quire
