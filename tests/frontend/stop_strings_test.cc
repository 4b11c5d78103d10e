#include "frontend/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace quire {
namespace {

// Feeds `text` in pieces of `step` bytes.
std::string run(StopStrings& stop, const std::string& text, size_t step) {
  std::string out;
  for (size_t i = 0; i < text.size(); i += step) out += stop.push(text.substr(i, step));
  return out + stop.finish();
}

TEST(StopStringsTest, FindsAStopAcrossPiecesAndEmitsNoPartOfIt) {
  for (size_t step = 1; step <= 12; ++step) {
    StopStrings stop({"END"});
    EXPECT_EQ(run(stop, "hello END world", step), "hello ") << step;
    EXPECT_EQ(stop.matched(), "END");
  }
}

TEST(StopStringsTest, EmitsHeldTextThatTurnsOutHarmless) {
  for (size_t step = 1; step <= 12; ++step) {
    StopStrings stop({"END", "\n\n"});
    EXPECT_EQ(run(stop, "EN EEND", step), "EN E");
  }
  StopStrings stop({"END"});
  EXPECT_EQ(stop.push("AE"), "A");
  EXPECT_EQ(stop.push("N"), "");
  EXPECT_EQ(stop.finish(), "EN");
  EXPECT_FALSE(stop.matched());
}

TEST(StopStringsTest, EarliestMatchWins) {
  StopStrings stop({"world", "lo"});
  EXPECT_EQ(stop.push("hello world"), "hel");
  EXPECT_EQ(stop.matched(), "lo");
  EXPECT_EQ(stop.push("more"), "");
}

TEST(StopStringsTest, CanIncludeTheStopString) {
  StopStrings stop({"."}, /*include_in_output=*/true);
  EXPECT_EQ(stop.push("One. Two."), "One.");
}

TEST(StopStringsTest, EmptyStopStringsAreIgnored) {
  StopStrings stop({""});
  EXPECT_EQ(stop.push("text"), "text");
}

TEST(StopStringsTest, AnyCutOfAnyTextGivesTheTextBeforeTheFirstStop) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += "ab"[random() % 2];
    const std::string needle = text.substr(random() % 25, 1 + random() % 5);
    StopStrings stop({needle});
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const size_t n = 1 + random() % 4;
      out += stop.push(text.substr(i, n));
      i += n;
    }
    out += stop.finish();
    ASSERT_EQ(out, text.substr(0, text.find(needle))) << "round " << round;
  }
}

}  // namespace
}  // namespace quire
