#include "kv/block_pool.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/hash.h"
#include "base/mutants.h"

namespace quire {

BlockPool::BlockPool(int num_blocks, int block_size)
    : block_size_(block_size),
      blocks_(num_blocks),
      tokens_(static_cast<int64_t>(num_blocks) * block_size, -1),
      buckets_(std::bit_ceil(static_cast<unsigned>(std::max(num_blocks, 1))), kNoBlock) {
  QUIRE_CHECK(num_blocks >= 0 && block_size >= 1);
  for (BlockId block = 0; block < num_blocks; ++block) push_back(block);
  num_free_ = num_blocks;
}

int64_t BlockPool::bytes_of(int64_t num_blocks, int block_size) {
  const auto buckets = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(num_blocks)));
  return num_blocks * (static_cast<int64_t>(sizeof(Block)) + block_size * 4) + buckets * 4;
}

BlockId BlockPool::allocate() {
  const BlockId block = front_;
  if (block == kNoBlock) return kNoBlock;
  unlink(block);
  if (blocks_[block].has_content) {
    evict(block);
    --num_cached_;
  } else {
    --num_free_;
  }
  blocks_[block].ref_count = 1;
  return block;
}

void BlockPool::take(BlockId block) {
  Block& b = blocks_[block];
  QUIRE_CHECK_MSG(b.ref_count == 0 && !b.has_content, "only a free block can be taken");
  unlink(block);
  --num_free_;
  b.ref_count = 1;
}

void BlockPool::reference(BlockId block) {
  Block& b = blocks_[block];
  if (b.ref_count == 0) {
    QUIRE_CHECK_MSG(b.has_content, "a free block is allocated, not referenced");
    unlink(block);
    --num_cached_;
  } else if (mutant("kv_forget_reference")) {
    return;
  }
  ++b.ref_count;
}

void BlockPool::release(BlockId block) {
  Block& b = blocks_[block];
  QUIRE_CHECK_MSG(b.ref_count > 0, "released more often than referenced");
  if (--b.ref_count > 0) return;
  if (b.has_content) {
    push_back(block);
    ++num_cached_;
  } else {
    push_front(block);
    ++num_free_;
    if (!mutant("kv_silent_release")) report_({.kind = KvEventKind::kRemoved, .block = block});
  }
}

BlockId BlockPool::find(const BlockKey& key) const {
  for (BlockId id = buckets_[bucket_of(key.hash)]; id != kNoBlock; id = blocks_[id].bucket_next) {
    const Block& b = blocks_[id];
    if (b.hash != key.hash) continue;
    if (mutant("kv_trust_hash")) return id;
    if (b.parent == key.parent && std::ranges::equal(tokens(id), key.tokens)) return id;
  }
  return kNoBlock;
}

BlockId BlockPool::cache(BlockId block, const BlockKey& key) {
  QUIRE_CHECK(blocks_[block].ref_count > 0);
  QUIRE_CHECK(key.tokens.size() == static_cast<size_t>(block_size_));
  const BlockId same = find(key);
  if (same == block) return block;
  if (same != kNoBlock && ref_count(block) > 1) return block;
  if (same != kNoBlock) {
    reference(same);
    release(block);
    return same;
  }
  QUIRE_CHECK_MSG(!blocks_[block].has_content, "cached before with another key");
  store_content(block, key);
  return block;
}

void BlockPool::store_content(BlockId block, const BlockKey& key) {
  if (key.parent >= 0) QUIRE_CHECK(blocks_[key.parent].has_content);
  Block& b = blocks_[block];
  b.has_content = true;
  b.hash = key.hash;
  b.parent = key.parent;
  std::ranges::copy(key.tokens, tokens_.begin() + static_cast<int64_t>(block) * block_size_);
  ++num_children_of(key.parent);
  index_insert(block);
  report_({.kind = KvEventKind::kStored, .block = block, .other = key.parent, .hash = key.hash});
}

void BlockPool::evict(BlockId block) {
  Block& b = blocks_[block];
  QUIRE_CHECK_MSG(b.num_children == 0, "a block outlived its parent in the cache");
  index_remove(block);
  report_({.kind = KvEventKind::kEvicted, .block = block, .hash = b.hash});
  b.has_content = false;
  --num_children_of(b.parent);
  if (b.parent < 0) drop_root_if_unused(b.parent);
  b.parent = kNoBlock;
  b.hash = 0;
  ++num_evictions_;
}

void BlockPool::read_states(std::span<BlockState> states) const {
  QUIRE_CHECK(states.size() == blocks_.size());
  const auto full = static_cast<uint16_t>(block_size_);
  for (size_t i = 0; i < states.size(); ++i) {
    const Block& b = blocks_[i];
    const bool is_free = b.ref_count == 0 && !b.has_content;
    states[i] = {b.hash, b.parent, b.ref_count, is_free ? uint16_t{0} : full};
  }
}

BlockId BlockPool::acquire_root(std::string_view salt) {
  if (mutant("kv_ignore_salt")) salt = "";
  const auto [entry, is_new] = root_of_salt_.try_emplace(std::string(salt), -1);
  if (is_new) {
    if (unused_roots_.empty()) {
      unused_roots_.push_back(static_cast<int>(roots_.size()));
      roots_.emplace_back();
    }
    entry->second = unused_roots_.back();
    unused_roots_.pop_back();
    roots_[entry->second].salt = salt;
  }
  ++roots_[entry->second].num_holders;
  return root_id(entry->second);
}

void BlockPool::release_root(BlockId root) {
  QUIRE_CHECK(roots_[root_index(root)].num_holders > 0);
  --roots_[root_index(root)].num_holders;
  drop_root_if_unused(root);
}

void BlockPool::drop_root_if_unused(BlockId root) {
  Root& r = roots_[root_index(root)];
  if (r.num_holders + r.num_children > 0) return;
  root_of_salt_.erase(r.salt);
  unused_roots_.push_back(root_index(root));
  r = Root{};
}

int32_t& BlockPool::num_children_of(BlockId parent) {
  return parent >= 0 ? blocks_[parent].num_children : roots_[root_index(parent)].num_children;
}

void BlockPool::push_front(BlockId block) {
  blocks_[block].previous = kNoBlock;
  blocks_[block].next = front_;
  (front_ == kNoBlock ? back_ : blocks_[front_].previous) = block;
  front_ = block;
}

void BlockPool::push_back(BlockId block) {
  blocks_[block].previous = back_;
  blocks_[block].next = kNoBlock;
  (back_ == kNoBlock ? front_ : blocks_[back_].next) = block;
  back_ = block;
}

void BlockPool::unlink(BlockId block) {
  Block& b = blocks_[block];
  (b.previous == kNoBlock ? front_ : blocks_[b.previous].next) = b.next;
  (b.next == kNoBlock ? back_ : blocks_[b.next].previous) = b.previous;
  b.previous = b.next = kNoBlock;
}

void BlockPool::index_insert(BlockId block) {
  BlockId& first = buckets_[bucket_of(blocks_[block].hash)];
  blocks_[block].bucket_previous = kNoBlock;
  blocks_[block].bucket_next = first;
  if (first != kNoBlock) blocks_[first].bucket_previous = block;
  first = block;
}

void BlockPool::index_remove(BlockId block) {
  Block& b = blocks_[block];
  BlockId& before = b.bucket_previous == kNoBlock ? buckets_[bucket_of(b.hash)]
                                                  : blocks_[b.bucket_previous].bucket_next;
  before = b.bucket_next;
  if (b.bucket_next != kNoBlock) blocks_[b.bucket_next].bucket_previous = b.bucket_previous;
  b.bucket_previous = b.bucket_next = kNoBlock;
}

}  // namespace quire
