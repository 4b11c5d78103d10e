#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kv/block_hash.h"
#include "kv/block_table.h"

namespace quire {
namespace {

using Tokens = std::vector<int32_t>;

// A pool of blocks of two tokens, with one root.
class BlockPoolTest : public testing::Test {
 protected:
  BlockKey key(const Tokens& tokens, BlockId parent) const {
    const uint64_t parent_hash = parent >= 0 ? pool.hash(parent) : root_hash(pool.salt(parent));
    return {block_hash(parent_hash, tokens), parent, tokens};
  }
  BlockId make_cached(const Tokens& tokens, BlockId parent) {
    const BlockId block = pool.allocate();
    EXPECT_EQ(pool.cache(block, key(tokens, parent)), block);
    return block;
  }
  void TearDown() override { EXPECT_EQ(pool.find_inconsistency(), ""); }

  BlockPool pool{4, 2};
  const BlockId root = pool.acquire_root("");
};

TEST_F(BlockPoolTest, GivesEveryBlockOnceAndThenNone) {
  std::vector<BlockId> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(pool.allocate());
  std::ranges::sort(blocks);
  EXPECT_EQ(blocks, (std::vector<BlockId>{0, 1, 2, 3}));
  EXPECT_EQ(pool.allocate(), kNoBlock);
  EXPECT_EQ(pool.num_used(), 4);
}

TEST_F(BlockPoolTest, ABlockIsFreeOnlyWhenItsLastHolderReleasesIt) {
  const BlockId block = pool.allocate();
  pool.reference(block);
  EXPECT_FALSE(pool.is_writable(block));
  pool.release(block);
  EXPECT_EQ(pool.num_used(), 1);
  EXPECT_TRUE(pool.is_writable(block));
  pool.release(block);
  EXPECT_EQ(pool.num_free(), 4);
}

TEST_F(BlockPoolTest, AReleasedCachedBlockIsFoundAgainAndReferenced) {
  const Tokens tokens = {1, 2};
  const BlockId block = make_cached(tokens, root);
  EXPECT_FALSE(pool.is_writable(block));
  pool.release(block);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_EQ(pool.find(key(tokens, root)), block);
  pool.reference(block);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.ref_count(block), 1);
  pool.release(block);
}

TEST_F(BlockPoolTest, EvictsTheLeastRecentlyUsedCachedBlockFirst) {
  const Tokens a = {1, 1}, b = {2, 2}, c = {3, 3};
  const BlockId block_a = make_cached(a, root), block_b = make_cached(b, root);
  const BlockId block_c = make_cached(c, root);
  pool.release(block_b);
  pool.release(block_a);
  pool.release(block_c);
  pool.reference(block_b);  // used again: now the most recent
  pool.release(block_b);
  pool.allocate();  // the one free block
  EXPECT_EQ(pool.num_evictions(), 0);
  EXPECT_EQ(pool.allocate(), block_a);
  EXPECT_EQ(pool.allocate(), block_c);
  EXPECT_EQ(pool.find(key(a, root)), kNoBlock);
  EXPECT_EQ(pool.find(key(b, root)), block_b);
  EXPECT_EQ(pool.num_evictions(), 2);
}

TEST_F(BlockPoolTest, FreeBlocksAreTakenBeforeAnyContentIsEvicted) {
  const BlockId cached = make_cached({1, 2}, root);
  const BlockId plain = pool.allocate();
  pool.release(cached);
  pool.release(plain);
  for (int i = 0; i < 3; ++i) EXPECT_NE(pool.allocate(), cached);
  EXPECT_EQ(pool.num_cached(), 1);
}

TEST_F(BlockPoolTest, AHashCollisionNeverServesOtherTokens) {
  const Tokens mine = {1, 2}, other = {3, 4};
  const BlockKey first{42, root, mine}, second{42, root, other};
  const BlockId a = pool.allocate(), b = pool.allocate();
  ASSERT_EQ(pool.cache(a, first), a);
  EXPECT_EQ(pool.find(second), kNoBlock);
  ASSERT_EQ(pool.cache(b, second), b);
  EXPECT_EQ(pool.find(first), a);
  EXPECT_EQ(pool.find(second), b);
  pool.release(a), pool.release(b);
  while (pool.num_available() > 0) pool.allocate();  // both leave the index
  EXPECT_EQ(pool.find(first), kNoBlock);
  EXPECT_EQ(pool.find(second), kNoBlock);
}

TEST_F(BlockPoolTest, AHashCollisionNeverServesAnotherParentsBlock) {
  const Tokens tokens = {5, 6};
  const BlockId parent_a = make_cached({1, 1}, root), parent_b = make_cached({2, 2}, root);
  const BlockId child = pool.allocate();
  pool.cache(child, {42, parent_a, tokens});
  EXPECT_EQ(pool.find({42, parent_a, tokens}), child);
  EXPECT_EQ(pool.find({42, parent_b, tokens}), kNoBlock);
  pool.release(child);
  for (int i = 0; i < 2; ++i) pool.allocate();  // the forged hash leaves before the check
}

TEST_F(BlockPoolTest, EqualTokensUnderAnotherSaltAreNotFound) {
  const Tokens tokens = {1, 2};
  const BlockId block = make_cached(tokens, root);
  const BlockId other = pool.acquire_root("tenant");
  EXPECT_NE(other, root);
  EXPECT_EQ(pool.find(key(tokens, other)), kNoBlock);
  EXPECT_EQ(pool.find(key(tokens, root)), block);
  // Even with a hash that collides:
  EXPECT_EQ(pool.find({pool.hash(block), other, tokens}), kNoBlock);
  pool.release_root(other);
  EXPECT_EQ(pool.num_roots(), 1);
}

TEST_F(BlockPoolTest, ASaltLivesAsLongAsItsSequencesOrBlocks) {
  const BlockId tenant = pool.acquire_root("tenant");
  EXPECT_EQ(pool.acquire_root("tenant"), tenant);
  const BlockId block = make_cached({1, 2}, tenant);
  pool.release_root(tenant);
  pool.release_root(tenant);
  pool.release(block);
  EXPECT_EQ(pool.acquire_root("tenant"), tenant);  // the cached block kept it
  pool.release_root(tenant);
  for (int i = 0; i < 4; ++i) pool.allocate();
  EXPECT_EQ(pool.num_roots(), 1);
}

TEST_F(BlockPoolTest, TheSecondBlockWithEqualContentGivesWayToTheFirst) {
  const Tokens tokens = {1, 2};
  const BlockId first = make_cached(tokens, root);
  const BlockId second = pool.allocate();
  EXPECT_EQ(pool.cache(second, key(tokens, root)), first);
  EXPECT_EQ(pool.ref_count(first), 2);
  EXPECT_EQ(pool.num_used(), 1);
  EXPECT_EQ(pool.cache(first, key(tokens, root)), first);  // caching twice changes nothing
  EXPECT_EQ(pool.ref_count(first), 2);
}

TEST_F(BlockPoolTest, CopiesAreIndependentAndCompareByValue) {
  BlockPool copy = pool;
  EXPECT_EQ(copy, pool);
  EXPECT_EQ(copy.state_hash(), pool.state_hash());
  const BlockId block = copy.allocate();
  EXPECT_FALSE(copy == pool);
  EXPECT_NE(copy.state_hash(), pool.state_hash());
  copy.release(block);
  EXPECT_EQ(copy, pool);
}

TEST(BlockPoolDeathTest, ReleasingTooOftenIsABug) {
  BlockPool pool(2, 1);
  const BlockId block = pool.allocate();
  pool.release(block);
  EXPECT_DEATH(pool.release(block), "released more often");
}

// "stored 0 under -2" and so on.
std::string text_of(const KvEventLog& log) {
  std::string text;
  for (const KvEvent& e : log.events()) {
    text += std::string(kv_event_name(e.kind)) + " " + std::to_string(e.block);
    if (e.other != kNoBlock) text += " with " + std::to_string(e.other);
    if (e.count != 1) text += " of " + std::to_string(e.count);
    text += "; ";
  }
  return text;
}

TEST_F(BlockPoolTest, ReportsWhatHappensToBlocksInOrder) {
  KvEventLog log(100);
  pool.set_event_log(&log);
  const Tokens tokens = {1, 2};
  const BlockId block = make_cached(tokens, root);
  EXPECT_EQ(log.events()[0].hash, pool.hash(block));
  EXPECT_EQ(text_of(log), "stored 0 with -2; ");
  log.clear();
  BlockTable table, fork;
  table.append_owned(block);
  ASSERT_TRUE(table.reserve(pool, 4));
  fork.fork(pool, table);
  std::vector<BlockCopy> copies;
  ASSERT_TRUE(fork.make_writable(pool, 1, &copies));
  fork.release(pool);
  table.release(pool);
  EXPECT_EQ(text_of(log), "forked 1 of 2; copied 1 with 2; removed 2; removed 1; ");
  log.clear();
  for (int i = 0; i < 4; ++i) pool.allocate();
  EXPECT_EQ(text_of(log), "evicted 0; ");
  EXPECT_NE(log.events()[0].hash, 0U);
  pool.set_event_log(nullptr);
  pool.release(3);
  EXPECT_EQ(log.events().size(), 1U);
}

TEST(KvEventLog, KeepsTheFirstAndCountsTheOthers) {
  KvEventLog log(2);
  for (int i = 0; i < 5; ++i) log.push({.kind = KvEventKind::kRemoved, .block = i});
  EXPECT_EQ(text_of(log), "removed 0; removed 1; ");
  EXPECT_EQ(log.num_dropped(), 3);
}

TEST(KvEventLog, ACopyOfAPoolReportsToNobody) {
  KvEventLog log(10);
  BlockPool pool(4, 2);
  pool.set_event_log(&log);
  BlockPool copy = pool;
  copy.release(copy.allocate());
  EXPECT_TRUE(log.events().empty());
  pool.release(pool.allocate());
  EXPECT_EQ(log.events().size(), 1U);
  EXPECT_EQ(copy, pool);
}

}  // namespace
}  // namespace quire
