// top_k of every level against sorting: ids and values, bit for bit.
#include <algorithm>
#include <limits>

#include "kernels/op_testing.h"

namespace quire::testing {
namespace {

struct Best {
  std::vector<int32_t> ids;
  std::vector<float> values;
};

Best run(const OpTable& ops, Exec& exec, FencedMatrix& x, int32_t k) {
  const auto n = static_cast<size_t>(x.rows() * k);
  Best best{std::vector<int32_t>(n + 1, -77), std::vector<float>(n + 1, -77)};
  QUIRE_RUN_OP(ops, top_k, exec, {x.const_view(), k, best.ids.data(), best.values.data()});
  EXPECT_EQ(best.ids.back(), -77);
  EXPECT_EQ(best.values.back(), -77);
  best.ids.pop_back();
  best.values.pop_back();
  return best;
}

void check(FencedMatrix& x, int32_t k) {
  Exec one(1);
  Exec two(2);
  const Best want = run(ref_ops(), one, x, k);
  for (const IsaLevel& level : levels_here()) {
    SCOPED_TRACE(std::string(level.name) + " k=" + std::to_string(k) + " columns " +
                 std::to_string(x.cols()));
    const Best got = run(*level.ops, one, x, k);
    EXPECT_EQ(got.ids, want.ids);
    expect_same_bits(got.values, want.values);
    EXPECT_EQ(run(*level.ops, two, x, k).ids, want.ids);
  }
}

TEST(TopK, MatchesSortingOverAwkwardShapes) {
  std::mt19937_64 random(1);
  for (int64_t cols : {1, 2, 7, 8, 9, 16, 31, 100, 1025}) {
    FencedMatrix x(3, cols);
    x.fill(random);
    for (int32_t k : {1, 2, 5, 40, 1025}) {
      if (k <= cols) check(x, k);
    }
  }
}

TEST(TopK, GivesEqualValuesToTheLowerColumn) {
  std::mt19937_64 random(2);
  FencedMatrix x(4, 300);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 300; ++c) x.at(r, c) = static_cast<float>(random() % 5) - 2;
  }
  x.at(0, 17) = -0.0F;
  for (int32_t k : {1, 10, 150, 300}) check(x, k);
}

TEST(TopK, TakesNanForTheLowestValue) {
  std::mt19937_64 random(3);
  FencedMatrix x(2, 70);
  x.fill(random);
  for (int64_t c = 0; c < 70; c += 3) x.at(0, c) = std::numeric_limits<float>::quiet_NaN();
  for (int64_t c = 0; c < 70; ++c) x.at(1, c) = std::numeric_limits<float>::quiet_NaN();
  x.at(0, 1) = -std::numeric_limits<float>::infinity();
  x.at(0, 2) = std::numeric_limits<float>::infinity();
  for (int32_t k : {1, 8, 70}) check(x, k);
}

TEST(TopK, HandlesAVocabularyInRisingOrder) {
  FencedMatrix x(1, 128 * 1024);
  for (int64_t c = 0; c < x.cols(); ++c) x.at(0, c) = static_cast<float>(c);
  check(x, 1024);
}

TEST(TopK, HandlesALargeRandomVocabulary) {
  std::mt19937_64 random(4);
  FencedMatrix x(2, 128 * 1024 + 3);
  x.fill(random);
  check(x, 50);
  check(x, 1024);
}

}  // namespace
}  // namespace quire::testing
