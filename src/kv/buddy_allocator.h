// Contiguous regions of KV blocks, as engines reserved them before paging: the binary buddy system
// (Knowlton, CACM 1965). A region of 2^k blocks starts at a multiple of 2^k; a request is rounded
// up to the next power of two; two free halves of a larger region become one again. So a region may
// be refused although more blocks than it needs are free: external fragmentation.
//
// Only positions are managed here. The blocks' reference counts stay with the BlockPool.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "kv/block_pool.h"

namespace quire {

class BuddyAllocator {
 public:
  // Blocks 0 .. num_blocks - 1, all free. Where num_blocks is no power of two, its binary digits
  // are the largest regions.
  explicit BuddyAllocator(int num_blocks);

  int num_blocks() const { return static_cast<int>(order_.size()); }
  int num_free() const { return num_free_; }
  // Blocks of the largest region that allocate() can give now.
  int largest_free() const;
  // How many regions for `count` blocks there are when all is free.
  int capacity_for(int count) const { return num_blocks() / rounded(count); }
  static int rounded(int count) {
    return static_cast<int>(std::bit_ceil(static_cast<unsigned>(count)));
  }

  // The first of rounded(count) consecutive blocks, or kNoBlock.
  BlockId allocate(int count);
  // The same, but what rounding added is free again.
  BlockId allocate_exactly(int count);
  // Blocks [first, first + count) of one region or of several that touch.
  void free(BlockId first, int count);

  bool operator==(const BuddyAllocator&) const = default;
  uint64_t state_hash() const;
  // What is wrong with the lists, for tests; empty when nothing is. O(N).
  std::string find_inconsistency() const;

 private:
  static constexpr int kNumOrders = 31;
  static constexpr int8_t kNotFree = -1;  // no free region starts here

  void push(BlockId region, int order);
  void remove(BlockId region);
  void free_region(BlockId region, int order);

  std::vector<int8_t> order_;              // [N] of the free region that starts at the block
  std::vector<BlockId> next_, previous_;   // [N] free regions of one order
  std::array<BlockId, kNumOrders> first_;  // of each order
  int num_free_ = 0;
};

}  // namespace quire
