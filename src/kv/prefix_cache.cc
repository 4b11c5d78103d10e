#include "kv/prefix_cache.h"

#include <algorithm>

namespace quire {

namespace {
BlockKey key_of(const TokenChain& chain, int index, BlockId parent, int block_size) {
  return {chain.hashes[index],
          parent,
          chain.tokens.subspan(static_cast<size_t>(index) * block_size, block_size)};
}
}  // namespace

void find_prefix(const BlockPool& pool,
                 const TokenChain& chain,
                 int max_blocks,
                 std::vector<BlockId>* found) {
  found->clear();
  const int limit = std::min(max_blocks, static_cast<int>(chain.hashes.size()));
  BlockId parent = chain.root;
  for (int i = 0; i < limit; ++i) {
    const BlockId block = pool.find(key_of(chain, i, parent, pool.block_size()));
    if (block == kNoBlock) return;
    found->push_back(block);
    parent = block;
  }
}

int cache_blocks(BlockPool& pool, const TokenChain& chain, int first, int last, BlockTable* table) {
  for (int i = first; i < last; ++i) {
    const BlockId parent = i == 0 ? chain.root : (*table)[i - 1];
    table->cache(pool, i, key_of(chain, i, parent, pool.block_size()));
    if (!pool.has_content((*table)[i])) return i;
  }
  return last;
}

}  // namespace quire
