#include "kv/block_table.h"

#include "base/check.h"
#include "base/mutants.h"

namespace quire {

bool BlockTable::reserve(BlockPool& pool, int num_tokens) {
  const int wanted = num_blocks_for(num_tokens, pool.block_size());
  if (wanted - size() > pool.num_available()) return false;
  while (size() < wanted) blocks_.push_back(pool.allocate());
  return true;
}

void BlockTable::append_shared(BlockPool& pool, BlockId block) {
  pool.reference(block);
  blocks_.push_back(block);
}

void BlockTable::append_region(BlockPool& pool, BlockId first, int count) {
  for (BlockId block = first; block < first + count; ++block) {
    pool.take(block);
    blocks_.push_back(block);
  }
}

void BlockTable::fork(BlockPool& pool, const BlockTable& other) {
  QUIRE_CHECK(blocks_.empty());
  for (BlockId block : other.blocks_) append_shared(pool, block);
  if (blocks_.empty()) return;
  pool.report({.kind = KvEventKind::kForked, .block = blocks_.back(), .count = size()});
}

bool BlockTable::make_writable(BlockPool& pool, int index, std::vector<BlockCopy>* copies) {
  const BlockId shared = blocks_[index];
  if (pool.is_writable(shared) || mutant("kv_skip_copy_on_write")) return true;
  const BlockId own = pool.allocate();
  if (own == kNoBlock) return false;
  copies->push_back({shared, own});
  pool.report({.kind = KvEventKind::kCopied, .block = shared, .other = own});
  pool.release(shared);
  blocks_[index] = own;
  return true;
}

void BlockTable::truncate(BlockPool& pool, int num_blocks) {
  while (size() > num_blocks) {
    pool.release(blocks_.back());
    blocks_.pop_back();
  }
}

}  // namespace quire
