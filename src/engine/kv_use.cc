#include "engine/kv_use.h"

#include <algorithm>
#include <vector>

namespace quire {

namespace {

// Of one block: the most slots that any holder has filled and will fill.
struct BlockUse {
  int32_t filled = 0, filled_at_end = 0;
  bool is_held = false;
  bool is_live = false;  // a holder has not ended
};

void add_sequence(const Scheduler& scheduler, const Sequence& seq, std::vector<BlockUse>* blocks) {
  const int block_size = scheduler.pool().block_size();
  const int last = seq.num_prompt + std::max(0, seq.expected_output - 1);
  const int num_at_end = std::max(seq.num_computed, last);
  for (int i = 0; i < scheduler.reserved_blocks(seq); ++i) {
    BlockUse& use = (*blocks)[seq.table[i]];
    const int begin = i * block_size;
    use.filled = std::max(use.filled, std::clamp(seq.num_computed - begin, 0, block_size));
    use.filled_at_end = std::max(use.filled_at_end, std::clamp(num_at_end - begin, 0, block_size));
    use.is_held = true;
    use.is_live |= seq.state != SequenceState::kFinished;
  }
}

}  // namespace

KvUse& KvUse::operator+=(const KvUse& other) {
  total += other.total;
  tokens += other.tokens;
  reserved += other.reserved;
  internal += other.internal;
  ended += other.ended;
  rounding += other.rounding;
  stranded += other.stranded;
  free += other.free;
  return *this;
}

KvUse measure_kv_use(const Scheduler& scheduler) {
  const BlockPool& pool = scheduler.pool();
  const int64_t block_size = pool.block_size();
  std::vector<BlockUse> blocks(pool.num_blocks());
  KvUse use;
  use.total = pool.num_blocks() * block_size;
  int64_t num_reserved = 0;
  for (const Sequence& seq : scheduler.sequences()) {
    if (seq.table.size() > 0) add_sequence(scheduler, seq, &blocks);
  }
  for (const BlockUse& block : blocks) {
    if (!block.is_held) continue;
    ++num_reserved;
    if (!block.is_live) {
      use.ended += block_size;
      continue;
    }
    use.tokens += block.filled;
    use.reserved += block.filled_at_end - block.filled;
    use.internal += block_size - block.filled_at_end;
  }
  use.rounding = (pool.num_used() - num_reserved) * block_size;
  (scheduler.head_waits_for_memory() ? use.stranded : use.free) = pool.num_available() * block_size;
  return use;
}

}  // namespace quire
