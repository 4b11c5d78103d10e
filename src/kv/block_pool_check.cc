// What tests and the model checker ask of a BlockPool: its hash as a value, and whether it is
// consistent.
#include <algorithm>
#include <string>

#include "base/hash.h"
#include "kv/block_pool.h"

namespace quire {

uint64_t BlockPool::state_hash() const {
  uint64_t h = hash_combine(block_size_, blocks_.size());
  for (const Block& b : blocks_) {
    h = hash_combine(
        h, (uint64_t{static_cast<uint32_t>(b.ref_count)} << 32) | static_cast<uint32_t>(b.next));
    h = hash_combine(h, (uint64_t{static_cast<uint32_t>(b.parent)} << 1) | b.has_content);
    h = hash_combine(h, b.hash);
  }
  for (const Root& r : roots_)
    h = hash_combine(hash_combine(h, r.num_holders), hash_string(r.salt));
  return hash_combine(h, static_cast<uint32_t>(front_));
}

std::string BlockPool::find_list_inconsistency() const {
  int free = 0, cached = 0;
  BlockId previous = kNoBlock;
  for (BlockId id = front_; id != kNoBlock; id = blocks_[id].next) {
    const Block& b = blocks_[id];
    if (b.ref_count != 0) return "a used block is in the list of unreferenced blocks";
    if (b.previous != previous) return "the list's links disagree";
    if (!b.has_content && cached > 0) return "a free block stands behind a cached one";
    (b.has_content ? cached : free) += 1;
    if (free + cached > num_blocks()) return "the list has a cycle";
    previous = id;
  }
  if (previous != back_) return "the list's end is wrong";
  if (free != num_free_ || cached != num_cached_) return "free or cached blocks are miscounted";
  const auto used = std::ranges::count_if(blocks_, [](const Block& b) { return b.ref_count > 0; });
  if (free + cached + used != num_blocks()) return "free + cached + used != N";
  return "";
}

std::string BlockPool::find_inconsistency() const {
  if (std::string wrong = find_list_inconsistency(); !wrong.empty()) return wrong;
  std::vector<int> children(blocks_.size(), 0), root_children(roots_.size(), 0);
  for (BlockId id = 0; id < num_blocks(); ++id) {
    const Block& b = blocks_[id];
    if (!b.has_content) continue;
    uint64_t parent_hash;
    if (b.parent >= 0) {
      const Block& parent = blocks_[b.parent];
      if (!parent.has_content) return "a cached block's parent has no content";
      if (b.ref_count > parent.ref_count && parent.ref_count == 0) {
        return "a block is used while its parent may be evicted";
      }
      ++children[b.parent];
      parent_hash = parent.hash;
    } else {
      ++root_children[root_index(b.parent)];
      parent_hash = hash_string(roots_[root_index(b.parent)].salt);
    }
    if (b.hash != hash_tokens(parent_hash, tokens(id)))
      return "a block's hash is not its content's";
    if (find({b.hash, b.parent, tokens(id)}) != id) return "a block with content is not found";
  }
  for (BlockId id = 0; id < num_blocks(); ++id) {
    if (children[id] != blocks_[id].num_children) return "a block's children are miscounted";
  }
  for (size_t i = 0; i < roots_.size(); ++i) {
    if (root_children[i] != roots_[i].num_children) return "a root's children are miscounted";
  }
  return "";
}

}  // namespace quire
