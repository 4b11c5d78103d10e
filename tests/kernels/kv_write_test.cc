// kv_write of every level against the reference, as bits of the whole cache.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/op_testing.h"

namespace quire::testing {
namespace {

struct Written {
  std::vector<unsigned char> cache;
  int64_t overflows = 0;
};

Written write(const OpTable& ops,
              Exec& exec,
              const KvLayout& layout,
              FencedMatrix& k,
              FencedMatrix& v,
              const std::vector<int64_t>& slots,
              int64_t num_blocks) {
  Written w;
  w.cache.assign(static_cast<size_t>(num_blocks * kv_block_bytes(layout)) + 64, 0xcd);
  QUIRE_RUN_OP(
      ops,
      kv_write,
      exec,
      {k.const_view(), v.const_view(), slots.data(), layout, w.cache.data(), &w.overflows});
  return w;
}

void check(const KvLayout& layout, int64_t tokens, float scale, uint64_t seed) {
  std::mt19937_64 random(seed);
  const int64_t num_blocks = tokens / layout.block_size + 3;
  std::vector<int64_t> slots(num_blocks * layout.block_size);
  std::iota(slots.begin(), slots.end(), 0);
  std::shuffle(slots.begin(), slots.end(), random);
  slots.resize(tokens);
  for (int64_t t = 2; t < tokens; t += 5) slots[t] = -1;  // is there already
  FencedMatrix k(tokens, layout.num_kv_heads * layout.head_dim);
  FencedMatrix v(tokens, layout.num_kv_heads * layout.head_dim);
  k.fill(random, scale);
  v.fill(random, scale);
  Exec one(1);
  Exec three(3);
  const Written want = write(ref_ops(), one, layout, k, v, slots, num_blocks);
  for (const IsaLevel& level : levels_here()) {
    SCOPED_TRACE(std::string(level.name) + " " + dtype_info(layout.dtype).name + " B" +
                 std::to_string(layout.block_size) + " D" + std::to_string(layout.head_dim));
    for (Exec* exec : {&one, &three}) {
      const Written got = write(*level.ops, *exec, layout, k, v, slots, num_blocks);
      EXPECT_TRUE(got.cache == want.cache);
      EXPECT_EQ(got.overflows, want.overflows);
    }
  }
}

TEST(KvWrite, WritesTheBytesOfTheReferenceAndNoOthers) {
  uint64_t seed = 1;
  for (DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int32_t b : {1, 2, 16, 256}) {
      for (int32_t dim : {8, 20, 64, 128}) {
        check({type, b, 3, dim}, 37, 1, seed++);
        check({type, b, 1, dim}, 1, 1e-6F, seed++);  // f16 denormals
      }
    }
  }
  check({DType::kF16, 16, 2, 64}, 0, 1, seed);
}

TEST(KvWrite, SaturatesAndCountsWhatF16CannotHold) {
  check({DType::kF16, 16, 2, 64}, 40, 40000, 99);
  const KvLayout layout{DType::kF16, 1, 1, 8};
  FencedMatrix k(1, 8);
  FencedMatrix v(1, 8);
  k.at(0, 0) = 65504;  // the largest
  k.at(0, 1) = 65505;
  k.at(0, 2) = -1e9F;
  v.at(0, 7) = std::numeric_limits<float>::infinity();
  v.at(0, 6) = std::numeric_limits<float>::quiet_NaN();
  Exec exec(1);
  std::vector<IsaLevel> levels = levels_here();
  for (const IsaLevel& level : levels) {
    const Written got = write(*level.ops, exec, layout, k, v, {0}, 1);
    EXPECT_EQ(got.overflows, 3) << level.name;
    const auto* half = reinterpret_cast<const uint16_t*>(got.cache.data());
    EXPECT_EQ(half[0], 0x7bff);
    EXPECT_EQ(half[1], 0x7bff);
    EXPECT_EQ(half[2], 0xfbff);
    EXPECT_EQ(half[15], 0x7bff);
    EXPECT_GT(half[14] & 0x7fff, 0x7c00);  // still NaN
  }
}

}  // namespace
}  // namespace quire::testing
