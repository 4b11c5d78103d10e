#include "apps/human_integer.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(HumanIntegerTest, ReadsDecimalAndBinarySuffixes) {
  EXPECT_EQ(*parse_human_integer("512"), 512);
  EXPECT_EQ(*parse_human_integer("1k"), 1000);
  EXPECT_EQ(*parse_human_integer("1K"), 1024);
  EXPECT_EQ(*parse_human_integer("1.5G"), 1610612736);
  EXPECT_EQ(*parse_human_integer("2GiB"), 2147483648);
  EXPECT_EQ(*parse_human_integer("-1"), -1);
}

TEST(HumanIntegerTest, RefusesWhatIsNotAWholeNumber) {
  for (const char* text : {"", "k", "1x", "1kb", "1.5", "nan", "inf", "1e300", "0x", "1 K"}) {
    EXPECT_FALSE(parse_human_integer(text).ok()) << text;
  }
}

}  // namespace
}  // namespace quire
