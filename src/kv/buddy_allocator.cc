#include "kv/buddy_allocator.h"

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "base/mutants.h"

namespace quire {

namespace {
int order_of(int count) { return std::countr_zero(static_cast<unsigned>(count)); }
}  // namespace

BuddyAllocator::BuddyAllocator(int num_blocks)
    : order_(num_blocks, kNotFree), next_(num_blocks, kNoBlock), previous_(num_blocks, kNoBlock) {
  QUIRE_CHECK(num_blocks >= 0);
  first_.fill(kNoBlock);
  free(0, num_blocks);
}

int BuddyAllocator::largest_free() const {
  for (int order = kNumOrders - 1; order >= 0; --order) {
    if (first_[order] != kNoBlock) return 1 << order;
  }
  return 0;
}

BlockId BuddyAllocator::allocate(int count) {
  QUIRE_CHECK(count >= 1);
  if (count > num_blocks()) return kNoBlock;
  const int wanted = order_of(rounded(count));
  int order = wanted;
  while (order < kNumOrders && first_[order] == kNoBlock) ++order;
  if (order == kNumOrders) return kNoBlock;
  const BlockId region = first_[order];
  remove(region);
  while (order > wanted) {  // the upper half stays free
    --order;
    push(region + (1 << order), order);
  }
  num_free_ -= 1 << wanted;
  return region;
}

BlockId BuddyAllocator::allocate_exactly(int count) {
  const BlockId region = allocate(count);
  const int kept = count - (mutant("model_check_exact_region_is_free_too") && count > 1 ? 1 : 0);
  if (region != kNoBlock) free(region + kept, rounded(count) - kept);
  return region;
}

// Cuts the run into the largest aligned regions.
void BuddyAllocator::free(BlockId first, int count) {
  QUIRE_CHECK(first >= 0 && count >= 0 && first <= num_blocks() - count);
  while (count > 0) {
    int order = order_of(static_cast<int>(std::bit_floor(static_cast<unsigned>(count))));
    if (first > 0) order = std::min(order, std::countr_zero(static_cast<unsigned>(first)));
    free_region(first, order);
    first += 1 << order;
    count -= 1 << order;
  }
}

void BuddyAllocator::free_region(BlockId region, int order) {
  num_free_ += 1 << order;
  while (!mutant("kv_buddy_never_merges")) {
    const BlockId buddy = region ^ (1 << order);
    if (buddy >= num_blocks() || order_[buddy] != order) break;
    remove(buddy);
    region = std::min(region, buddy);
    ++order;
  }
  push(region, order);
}

void BuddyAllocator::push(BlockId region, int order) {
  QUIRE_CHECK_MSG(order_[region] == kNotFree, "a region is freed twice");
  order_[region] = static_cast<int8_t>(order);
  previous_[region] = kNoBlock;
  next_[region] = first_[order];
  if (first_[order] != kNoBlock) previous_[first_[order]] = region;
  first_[order] = region;
}

void BuddyAllocator::remove(BlockId region) {
  const int order = order_[region];
  const BlockId next = next_[region], previous = previous_[region];
  (previous == kNoBlock ? first_[order] : next_[previous]) = next;
  if (next != kNoBlock) previous_[next] = previous;
  next_[region] = previous_[region] = kNoBlock;
  order_[region] = kNotFree;
}

uint64_t BuddyAllocator::state_hash() const {
  uint64_t h = hash_combine(num_free_, order_.size());
  for (BlockId first : first_) {
    for (BlockId region = first; region != kNoBlock; region = next_[region]) {
      h = hash_combine(h, region);
    }
    h = hash_combine(h, static_cast<uint32_t>(kNoBlock));
  }
  return h;
}

std::string BuddyAllocator::find_inconsistency() const {
  std::vector<bool> is_free(order_.size(), false);
  int counted = 0;
  for (int order = 0; order < kNumOrders; ++order) {
    BlockId before = kNoBlock;
    for (BlockId region = first_[order]; region != kNoBlock; region = next_[region]) {
      if (order_[region] != order) return "a region is in the list of another order";
      if (previous_[region] != before) return "the links of a list disagree";
      if (region % (1 << order) != 0) return "a region is not aligned";
      if (region + (1 << order) > num_blocks()) return "a region reaches beyond the end";
      const BlockId buddy = region ^ (1 << order);
      if (buddy < num_blocks() && order_[buddy] == order) return "two free buddies are apart";
      for (BlockId block = region; block < region + (1 << order); ++block) {
        if (is_free[block]) return "two free regions overlap";
        is_free[block] = true;
      }
      counted += 1 << order;
      before = region;
    }
  }
  if (counted != num_free_) return "free blocks are miscounted";
  const auto starts = std::ranges::count_if(order_, [](int8_t o) { return o != kNotFree; });
  int listed = 0;
  for (BlockId first : first_) {
    for (BlockId region = first; region != kNoBlock; region = next_[region]) ++listed;
  }
  return starts == listed ? "" : "a free region is in no list";
}

}  // namespace quire
