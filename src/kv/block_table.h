// A sequence's logical blocks -> physical blocks. Copying the value does not copy references: a
// table releases nothing by itself, because the pool it belongs to is an argument.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"

namespace quire {

// The KV of `source` must be copied to `destination` before either is written.
struct BlockCopy {
  BlockId source, destination;
  bool operator==(const BlockCopy&) const = default;
};

inline int num_blocks_for(int num_tokens, int block_size) {
  return (num_tokens + block_size - 1) / block_size;
}

class BlockTable {
 public:
  int size() const { return static_cast<int>(blocks_.size()); }
  BlockId operator[](int index) const { return blocks_[index]; }
  std::span<const BlockId> blocks() const { return blocks_; }

  // Room for so many blocks, so that growing never allocates memory.
  void set_capacity(int num_blocks) { blocks_.reserve(num_blocks); }
  // Blocks for the first `num_tokens` tokens: all that are missing, or none and false.
  bool reserve(BlockPool& pool, int num_tokens);
  // Appends a block that others may hold too.
  void append_shared(BlockPool& pool, BlockId block);
  // Appends a block whose reference the caller gives away.
  void append_owned(BlockId block) { blocks_.push_back(block); }
  // Appends the free blocks [first, first + count): a contiguous region.
  void append_region(BlockPool& pool, BlockId first, int count);
  // Becomes a second holder of every block of `other`; must be empty.
  void fork(BlockPool& pool, const BlockTable& other);
  // Copy-on-write: makes block `index` this table's own, appending to *copies what that takes.
  // False if it needs a block and there is none.
  bool make_writable(BlockPool& pool, int index, std::vector<BlockCopy>* copies);
  // Declares block `index` full with `key`'s content; the table continues with the block that the
  // pool keeps for it.
  void cache(BlockPool& pool, int index, const BlockKey& key) {
    blocks_[index] = pool.cache(blocks_[index], key);
  }
  // Gives blocks back, tail first (so that the LRU list evicts a child before its parent).
  void truncate(BlockPool& pool, int num_blocks);
  void release(BlockPool& pool) { truncate(pool, 0); }

  bool operator==(const BlockTable&) const = default;

 private:
  std::vector<BlockId> blocks_;
};

}  // namespace quire
