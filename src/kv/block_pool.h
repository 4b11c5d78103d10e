// The physical KV blocks, as integers: who holds a block, which are free, and which full blocks of
// earlier tokens can be used again. Every operation is O(1) and allocates nothing.
//
// A block is in exactly one of three states:
//   used    ref_count > 0: that many block tables hold it
//   cached  ref_count == 0, content known: waits to be found again or evicted
//   free    ref_count == 0, no content worth keeping
// Cached and free blocks are one doubly linked list. Blocks are taken from its front; a released
// block without content goes to the front, one with content to the back: so the list is the LRU
// list of the cached blocks and content is given up only when no free block is left.
//
// A full block becomes shareable by cache(): it is then found by its key, which is its tokens and
// the identity of the block before it. The hash only says where to look. The parent's identity is
// its BlockId, and that is sound because a child never stays in the cache longer than its parent:
// every table that holds the child holds the parent before it (two tables that share a block share
// all before it: forks begin so, and cache() keeps it so), tables release their blocks tail
// first, and so the parent stands behind the child in the LRU list. The first block of a chain has
// a root as parent, which stands for the salt.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kv/kv_events.h"

namespace quire {

using BlockId = int32_t;
inline constexpr BlockId kNoBlock = -1;

struct BlockKey {
  uint64_t hash;                    // block_hash(parent's hash, tokens)
  BlockId parent;                   // a cached block, or what acquire_root returned
  std::span<const int32_t> tokens;  // [block_size]
};

// One block as it is at a moment.
struct BlockState {
  uint64_t hash;   // with content
  BlockId parent;  // with content: a block, or a root (below kNoBlock)
  int32_t ref_count;
  uint16_t num_filled;  // tokens; of a used block without content, as its holder knows
  bool has_content() const { return parent != kNoBlock; }
  bool operator==(const BlockState&) const = default;
};

class BlockPool {
 public:
  BlockPool(int num_blocks, int block_size);
  // Bytes of memory that a pool of that size takes.
  static int64_t bytes_of(int64_t num_blocks, int block_size);

  int num_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_size() const { return block_size_; }
  int num_free() const { return num_free_; }
  int num_cached() const { return num_cached_; }
  int num_used() const { return num_blocks() - num_free_ - num_cached_; }
  int num_available() const { return num_free_ + num_cached_; }
  int64_t num_evictions() const { return num_evictions_; }

  // A block with one reference and no content, or kNoBlock. Evicts the least recently used cached
  // block when no free one is left.
  BlockId allocate();
  // This free block, with one reference: who hands out positions is the BuddyAllocator.
  void take(BlockId block);
  // One more holder. A cached block leaves the LRU list.
  void reference(BlockId block);
  // One holder less.
  void release(BlockId block);

  // The block with this key, used or cached, or kNoBlock.
  BlockId find(const BlockKey& key) const;
  // Declares that `block`, of which the caller holds a reference, is full and has this content.
  // Returns the block to hold from now on: `block`, or, if another one already has the same
  // content, that one (the caller's reference has moved to it). But a block that several hold stays
  // in all their tables, without content if another one has it: a table that held the next block
  // and not its parent would let the parent be evicted first.
  BlockId cache(BlockId block, const BlockKey& key);

  // The parent of first blocks under `salt`. Held by every open sequence with that salt; cached
  // blocks keep it alive as well.
  BlockId acquire_root(std::string_view salt);
  void release_root(BlockId root);

  int ref_count(BlockId block) const { return blocks_[block].ref_count; }
  bool has_content(BlockId block) const { return blocks_[block].has_content; }
  // Only its single holder may write to a block, and only while it has not been cached.
  bool is_writable(BlockId block) const { return ref_count(block) == 1 && !has_content(block); }
  uint64_t hash(BlockId block) const { return blocks_[block].hash; }
  BlockId parent(BlockId block) const { return blocks_[block].parent; }
  std::span<const int32_t> tokens(BlockId block) const {
    return {tokens_.data() + static_cast<int64_t>(block) * block_size_,
            static_cast<size_t>(block_size_)};
  }
  std::string_view salt(BlockId root) const { return roots_[root_index(root)].salt; }
  // All blocks at once: [N]. Used blocks without content count as full.
  void read_states(std::span<BlockState> states) const;

  // From now on what happens to blocks is pushed to *log (null: to nobody), which must outlive the
  // pool or the next call.
  void set_event_log(KvEventLog* log) { report_.set(log); }
  // For what tables do: they know the pool only.
  void report(const KvEvent& event) const { report_(event); }

  int num_roots() const { return static_cast<int>(root_of_salt_.size()); }

  bool operator==(const BlockPool&) const = default;
  uint64_t state_hash() const;
  // What is wrong with lists, counts and index, for tests; empty when nothing is. O(N).
  std::string find_inconsistency() const;

 private:
  struct Block {
    int32_t ref_count = 0;
    BlockId previous = kNoBlock, next = kNoBlock;  // in the list of unreferenced blocks
    BlockId bucket_previous = kNoBlock, bucket_next = kNoBlock;
    BlockId parent = kNoBlock;
    int32_t num_children = 0;  // blocks with content whose parent this is
    bool has_content = false;
    uint64_t hash = 0;
    bool operator==(const Block&) const = default;
  };
  struct Root {
    std::string salt;
    int32_t num_holders = 0;   // open sequences
    int32_t num_children = 0;  // blocks with content
    bool operator==(const Root&) const = default;
  };

  static int root_index(BlockId root) { return -2 - root; }
  static BlockId root_id(int index) { return -2 - index; }
  int32_t& num_children_of(BlockId parent);
  void drop_root_if_unused(BlockId root);
  void push_front(BlockId block);
  void push_back(BlockId block);
  void unlink(BlockId block);
  int bucket_of(uint64_t hash) const { return static_cast<int>(hash & (buckets_.size() - 1)); }
  void index_insert(BlockId block);
  void index_remove(BlockId block);
  void evict(BlockId block);
  void store_content(BlockId block, const BlockKey& key);
  std::string find_list_inconsistency() const;

  int block_size_;
  std::vector<Block> blocks_;     // [N]
  std::vector<int32_t> tokens_;   // [N, B]
  std::vector<BlockId> buckets_;  // first block of each chain of the hash index
  BlockId front_ = kNoBlock, back_ = kNoBlock;
  int num_free_ = 0, num_cached_ = 0;
  int64_t num_evictions_ = 0;
  std::vector<Root> roots_;
  std::vector<int> unused_roots_;
  std::unordered_map<std::string, int> root_of_salt_;
  KvEventTarget report_;
};

}  // namespace quire
