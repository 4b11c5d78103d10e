#include "base/philox.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

// The known answers published with Random123 (kat_vectors, philox4x32-10).
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformDependsOnSeedPositionAndStream) {
  const double base = philox_uniform(1, 2, 3);
  EXPECT_NE(base, philox_uniform(2, 2, 3));
  EXPECT_NE(base, philox_uniform(1, 3, 3));
  EXPECT_NE(base, philox_uniform(1, 2, 4));
  EXPECT_NE(base, philox_uniform(1 + (uint64_t{1} << 32), 2, 3));
  EXPECT_NE(base, philox_uniform(1, 2 + (uint64_t{1} << 32), 3));
  EXPECT_EQ(base, philox_uniform(1, 2, 3));
}

TEST(Philox, UniformFillsTheUnitInterval) {
  constexpr int kBins = 16, kDraws = 160000;
  int bins[kBins] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double u = philox_uniform(7, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<int>(u * kBins)];
  }
  double chi_square = 0;
  for (int count : bins) {
    const double expected = static_cast<double>(kDraws) / kBins;
    chi_square += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_square, 37.7);  // 15 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace quire
