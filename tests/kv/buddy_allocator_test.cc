#include "kv/buddy_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/hash.h"
#include "kv/block_table.h"

namespace quire {
namespace {

TEST(BuddyAllocator, RoundsUpToAnAlignedPowerOfTwo) {
  BuddyAllocator regions(16);
  EXPECT_EQ(regions.allocate(3), 0);
  EXPECT_EQ(regions.num_free(), 12);
  EXPECT_EQ(regions.allocate(5), 8);
  EXPECT_EQ(regions.allocate(1), 4);
  EXPECT_EQ(regions.num_free(), 3);
  EXPECT_EQ(regions.find_inconsistency(), "");
}

TEST(BuddyAllocator, RefusesARegionThoughEnoughBlocksAreFree) {
  BuddyAllocator regions(8);
  std::vector<BlockId> held;
  for (int i = 0; i < 8; ++i) held.push_back(regions.allocate(1));
  for (BlockId block : held) {
    if (block % 2 == 0) regions.free(block, 1);
  }
  EXPECT_EQ(regions.num_free(), 4);
  EXPECT_EQ(regions.largest_free(), 1);
  EXPECT_EQ(regions.allocate(2), kNoBlock);
}

TEST(BuddyAllocator, FreeHalvesBecomeOneRegionAgain) {
  BuddyAllocator regions(8);
  std::vector<BlockId> held;
  for (int i = 0; i < 4; ++i) held.push_back(regions.allocate(2));
  EXPECT_EQ(regions.largest_free(), 0);
  for (BlockId block : held) regions.free(block, 2);
  EXPECT_EQ(regions.largest_free(), 8);
  EXPECT_EQ(regions, BuddyAllocator(8));
}

TEST(BuddyAllocator, ASizeThatIsNoPowerOfTwoFallsIntoItsBinaryDigits) {
  BuddyAllocator regions(983);  // 512 + 256 + 128 + 64 + 16 + 4 + 2 + 1
  EXPECT_EQ(regions.find_inconsistency(), "");
  EXPECT_EQ(regions.capacity_for(128), 7);
  int num_regions = 0;
  while (regions.allocate(128) != kNoBlock) ++num_regions;
  EXPECT_EQ(num_regions, 7);
  EXPECT_EQ(regions.num_free(), 983 - 7 * 128);
  EXPECT_EQ(BuddyAllocator(100).allocate(101), kNoBlock);
  EXPECT_EQ(BuddyAllocator(0).largest_free(), 0);
}

TEST(BuddyAllocator, AnExactRegionGivesTheRestBack) {
  BuddyAllocator regions(16);
  EXPECT_EQ(regions.allocate_exactly(5), 0);
  EXPECT_EQ(regions.num_free(), 11);
  EXPECT_EQ(regions.allocate(2), 6);
  EXPECT_EQ(regions.allocate(1), 5);
  regions.free(5, 3);  // runs of regions that touch
  regions.free(0, 5);
  EXPECT_EQ(regions, BuddyAllocator(16));
}

// Against a plain map of which block is taken, 20,000 operations on pools of every small size.
TEST(BuddyAllocator, NeverGivesABlockTwiceAndLosesNone) {
  for (int num_blocks = 1; num_blocks <= 40; ++num_blocks) {
    SCOPED_TRACE(num_blocks);
    BuddyAllocator regions(num_blocks);
    std::vector<bool> taken(num_blocks, false);
    std::vector<std::pair<BlockId, int>> held;
    uint64_t random = 7 * num_blocks;
    for (int step = 0; step < 500; ++step) {
      random = mix64(random + 1);
      if (random % 3 == 0 && !held.empty()) {
        const size_t victim = random / 3 % held.size();
        const auto [first, count] = held[victim];
        std::fill_n(taken.begin() + first, count, false);
        regions.free(first, count);
        held.erase(held.begin() + victim);
      } else {
        const int count = 1 + static_cast<int>(random / 3 % 7);
        const bool exact = random / 21 % 2;
        const BlockId first = exact ? regions.allocate_exactly(count) : regions.allocate(count);
        if (first == kNoBlock) {
          ASSERT_LT(regions.largest_free(), count);
          continue;
        }
        const int size = exact ? count : BuddyAllocator::rounded(count);
        held.emplace_back(first, size);
        for (BlockId block = first; block < first + size; ++block) {
          ASSERT_FALSE(taken[block]);
          taken[block] = true;
        }
      }
      ASSERT_EQ(regions.find_inconsistency(), "");
      ASSERT_EQ(regions.num_free(), std::ranges::count(taken, false));
    }
    for (const auto& [first, count] : held) regions.free(first, count);
    EXPECT_EQ(regions.num_free(), num_blocks);
    EXPECT_EQ(regions.largest_free(), static_cast<int>(std::bit_floor(unsigned(num_blocks))));
  }
}

TEST(BlockTable, ARegionIsConsecutiveBlocksOfThePool) {
  BlockPool pool(8, 4);
  BlockTable table;
  table.append_region(pool, 2, 3);
  EXPECT_TRUE(std::ranges::equal(table.blocks(), std::vector<BlockId>{2, 3, 4}));
  EXPECT_EQ(pool.num_used(), 3);
  EXPECT_EQ(pool.find_inconsistency(), "");
  table.release(pool);
  EXPECT_EQ(pool.num_free(), 8);
  EXPECT_EQ(pool.find_inconsistency(), "");
}

}  // namespace
}  // namespace quire
