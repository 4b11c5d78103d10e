#include "kv/block_table.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kv/block_hash.h"
#include "kv/prefix_cache.h"

namespace quire {
namespace {

TEST(BlockTable, TakesBlocksOnDemandAllOrNone) {
  BlockPool pool(3, 4);
  BlockTable table;
  EXPECT_TRUE(table.reserve(pool, 1));
  EXPECT_TRUE(table.reserve(pool, 4));
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(table.reserve(pool, 5));
  EXPECT_EQ(table.size(), 2);
  EXPECT_FALSE(table.reserve(pool, 13));
  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(pool.num_available(), 1);
  table.release(pool);
  EXPECT_EQ(pool.num_free(), 3);
}

TEST(BlockTable, AForkSharesEveryBlockAndCopiesOnWrite) {
  BlockPool pool(4, 2);
  BlockTable parent, child;
  ASSERT_TRUE(parent.reserve(pool, 3));
  child.fork(pool, parent);
  EXPECT_EQ(pool.num_used(), 2);
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(child.make_writable(pool, 1, &copies));
  EXPECT_EQ(copies, (std::vector<BlockCopy>{{parent[1], child[1]}}));
  EXPECT_NE(parent[1], child[1]);
  EXPECT_EQ(parent[0], child[0]);
  // The last holder of a block writes in place.
  ASSERT_TRUE(parent.make_writable(pool, 1, &copies));
  EXPECT_EQ(copies.size(), 1u);
  child.release(pool);
  parent.release(pool);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.find_inconsistency(), "");
}

TEST(BlockTable, CopyOnWriteWithoutAFreeBlockChangesNothing) {
  BlockPool pool(1, 2);
  BlockTable parent, child;
  ASSERT_TRUE(parent.reserve(pool, 1));
  child.fork(pool, parent);
  std::vector<BlockCopy> copies;
  const BlockTable before = child;
  EXPECT_FALSE(child.make_writable(pool, 0, &copies));
  EXPECT_EQ(child, before);
  EXPECT_TRUE(copies.empty());
  EXPECT_EQ(pool.ref_count(0), 2);
}

TEST(BlockTable, TruncateGivesBackTheTail) {
  BlockPool pool(4, 2);
  BlockTable table;
  ASSERT_TRUE(table.reserve(pool, 8));
  table.truncate(pool, 1);
  EXPECT_EQ(table.size(), 1);
  EXPECT_EQ(pool.num_free(), 3);
}

// Prompts of 8 tokens in blocks of 2.
class PrefixCacheTest : public testing::Test {
 protected:
  struct Prompt {
    std::vector<int32_t> tokens = std::vector<int32_t>(8);
    std::vector<uint64_t> hashes;
    BlockId root;
    BlockTable table;
    TokenChain chain() const { return {root, tokens, hashes}; }
  };
  Prompt prompt(int first_token, std::string_view salt = "") {
    Prompt p;
    std::iota(p.tokens.begin(), p.tokens.end(), first_token);
    p.root = pool.acquire_root(salt);
    extend_block_hashes(root_hash(salt), p.tokens, 2, &p.hashes);
    return p;
  }
  void compute(Prompt& p) {
    ASSERT_TRUE(p.table.reserve(pool, 8));
    cache_blocks(pool, p.chain(), 0, 4, &p.table);
  }
  std::vector<BlockId> find(const Prompt& p, int most = 4) {
    std::vector<BlockId> found;
    find_prefix(pool, p.chain(), most, &found);
    return found;
  }
  void TearDown() override { EXPECT_EQ(pool.find_inconsistency(), ""); }
  BlockPool pool{8, 2};
};

TEST_F(PrefixCacheTest, FindsTheLongestCachedPrefixAndNoMoreThanAsked) {
  Prompt first = prompt(0), second = prompt(0);
  compute(first);
  EXPECT_EQ(find(second).size(), 4u);
  EXPECT_EQ(find(second, 3).size(), 3u);
  second.tokens[5] = 99;
  second.hashes.clear();
  extend_block_hashes(root_hash(""), second.tokens, 2, &second.hashes);
  EXPECT_EQ(find(second).size(), 2u);
  EXPECT_TRUE(find(prompt(0, "salt")).empty());
}

TEST_F(PrefixCacheTest, LookingDoesNotChangeReferencesOrLruOrder) {
  Prompt first = prompt(0);
  compute(first);
  first.table.release(pool);
  const BlockPool before = pool;
  EXPECT_EQ(find(first).size(), 4u);
  EXPECT_EQ(pool, before);
}

TEST_F(PrefixCacheTest, EvictsTheTailBeforeTheHead) {
  Prompt first = prompt(0);
  compute(first);
  first.table.release(pool);
  for (size_t left = 4; left > 0; --left) {
    EXPECT_EQ(find(first).size(), left);
    while (pool.num_free() > 0) pool.allocate();
    pool.allocate();
  }
  EXPECT_TRUE(find(first).empty());
}

TEST_F(PrefixCacheTest, SequencesThatComputeTheSameTokensEndUpWithTheSameBlocks) {
  Prompt first = prompt(0), second = prompt(0);
  ASSERT_TRUE(second.table.reserve(pool, 8));  // starts before the first is cached
  compute(first);
  cache_blocks(pool, second.chain(), 0, 4, &second.table);
  EXPECT_EQ(first.table, second.table);
  EXPECT_EQ(pool.num_used(), 4);
}

// Else one of the forks would hold the second block without its parent, which could be evicted
// first.
TEST_F(PrefixCacheTest, BlocksThatForksShareAreNotReplacedInOneOfThem) {
  Prompt first = prompt(0), second = prompt(0), fork = prompt(0);
  ASSERT_TRUE(second.table.reserve(pool, 8));
  fork.table.fork(pool, second.table);
  compute(first);
  EXPECT_EQ(cache_blocks(pool, second.chain(), 0, 4, &second.table), 0);
  EXPECT_EQ(second.table, fork.table);
  EXPECT_FALSE(pool.has_content(second.table[0]));
  fork.table.release(pool);
  EXPECT_EQ(cache_blocks(pool, second.chain(), 0, 4, &second.table), 4);
  EXPECT_EQ(first.table, second.table);
}

}  // namespace
}  // namespace quire
