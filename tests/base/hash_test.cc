#include "base/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace quire {
namespace {

// Stored hashes stay valid: these values may never change.
TEST(Hash, IsTheSameInEveryProcessAndRelease) {
  EXPECT_EQ(mix64(1), 0x5692161d100b05e5u);
  EXPECT_EQ(hash_string(""), hash_combine(0, 0));
  const std::vector<int32_t> tokens = {1, 2, 3};
  EXPECT_EQ(hash_tokens(0, tokens), hash_tokens(0, std::vector<int32_t>{1, 2, 3}));
}

TEST(Hash, TokensDependOnOrderLengthAndSeed) {
  using V = std::vector<int32_t>;
  const std::set<uint64_t> all = {hash_tokens(0, V{}),
                                  hash_tokens(0, V{0}),
                                  hash_tokens(0, V{0, 0}),
                                  hash_tokens(0, V{1, 2}),
                                  hash_tokens(0, V{2, 1}),
                                  hash_tokens(1, V{2, 1}),
                                  hash_combine(1, 2),
                                  hash_combine(2, 1)};
  EXPECT_EQ(all.size(), 8u);
}

TEST(Hash, ShortSequencesDoNotCollide) {
  std::set<uint64_t> seen;
  for (int32_t a = 0; a < 300; ++a) {
    for (int32_t b = 0; b < 300; ++b) {
      seen.insert(hash_tokens(0, std::vector<int32_t>{a, b}));
    }
  }
  EXPECT_EQ(seen.size(), 300u * 300u);
}

}  // namespace
}  // namespace quire
