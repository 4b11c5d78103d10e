#include "apps/terminal.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(EtaText, CountsOnlyWhatThisRunHasDone) {
  EXPECT_EQ(eta_text(10, 20, 0, 60), "  ETA 0:20");
  EXPECT_EQ(eta_text(10, 27, 17, 60), "  ETA 0:33") << "17 were done before the start";
  EXPECT_EQ(eta_text(100, 1, 0, 61), "  ETA 100:00");
}

TEST(EtaText, IsEmptyWithNothingDoneOrNothingLeft) {
  EXPECT_EQ(eta_text(10, 0, 0, 60), "");
  EXPECT_EQ(eta_text(10, 17, 17, 60), "");
  EXPECT_EQ(eta_text(10, 60, 0, 60), "");
}

}  // namespace
}  // namespace quire
