// Finding and storing the full blocks of a token sequence in a BlockPool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/block_table.h"

namespace quire {

// A token sequence as the cache sees it. hashes[i] belongs to tokens [i*B, (i+1)*B).
struct TokenChain {
  BlockId root;
  std::span<const int32_t> tokens;
  std::span<const uint64_t> hashes;
};

// The longest run of leading blocks that the pool has, at most `max_blocks` of them, without
// touching their references or their place in the LRU list.
void find_prefix(const BlockPool& pool,
                 const TokenChain& chain,
                 int max_blocks,
                 std::vector<BlockId>* found);

// Stores blocks [first, last) of `table`, whose KV is computed, up to one that stays without
// content (BlockPool::cache). Returns how many leading blocks of the table are known to the cache
// now.
int cache_blocks(BlockPool& pool, const TokenChain& chain, int first, int last, BlockTable* table);

}  // namespace quire
