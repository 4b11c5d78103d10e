#include "frontend/utf8.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(Utf8Test, FindsTheFirstByteThatIsNotUtf8) {
  const std::pair<std::string, size_t> cases[] = {
      {"", 0},
      {"plain", 5},
      {"h\xc3\xa4\xe2\x82\xac\xf0\x9f\x99\x82", 10},
      {"\xff", 0},
      {"ab\x80", 2},  // a continuation byte alone
      {"ab\xc3", 2},  // cut short
      {"ab\xe2\x82", 2},
      {"ab\xf0\x9f\x99", 2},
      {"a\xc0\x80", 1},  // overlong
      {"a\xc1\xbf", 1},
      {"a\xe0\x9f\xbf", 1},
      {"a\xf0\x8f\xbf\xbf", 1},
      {"\xed\x9f\xbf\xed\xa0\x80", 3},          // a surrogate
      {"\xf4\x8f\xbf\xbf\xf4\x90\x80\x80", 4},  // beyond U+10FFFF
      {"\xf5\x80\x80\x80", 0},
      {"\xc3(", 0},
  };
  for (const auto& [text, valid] : cases) {
    EXPECT_EQ(valid_utf8_prefix(text), valid) << testing::PrintToString(text);
    EXPECT_EQ(check_utf8(text, "it").ok(), valid == text.size());
  }
}

}  // namespace
}  // namespace quire
