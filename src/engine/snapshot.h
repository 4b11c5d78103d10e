// The KV pool and all sequences at one moment between two steps, as plain data: what a page map or
// a debugger shows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/scheduler.h"

namespace quire {

struct SequenceSnapshot {
  SequenceId id;
  uint64_t arrival;      // the same for all members of a group
  int32_t sample_index;  // in the group
  SequenceState state;   // kWaiting, kRunning, or kFinished while a launched step contains it
  bool is_swapped;
  int32_t slot;  // -1: none
  int32_t num_prompt, num_tokens, num_computed, num_cached_tokens, num_preemptions;
  // In EngineSnapshot::tables: its blocks of the pool, then those of the host pool.
  int32_t first_block, num_blocks, num_host_blocks;
};

struct EngineSnapshot {
  int64_t step = 0;  // how many were launched before
  int block_size = 0;
  int num_free = 0, num_cached = 0, num_used = 0;
  int num_host_blocks = 0, num_host_used = 0;
  int num_waiting = 0, num_running = 0;
  int64_t num_evictions = 0;
  int64_t num_kv_events = 0;  // published before this snapshot, to put it among them

  std::vector<BlockState> blocks;  // [N]
  std::vector<SequenceSnapshot> sequences;
  std::vector<BlockId> tables;

  // Of the token slots of used blocks: those that hold a token, and those that wait for one.
  int64_t num_tokens_held = 0, num_slots_wasted = 0;
  // Blocks that sharing saves: holders beyond the first of every used block.
  int64_t num_blocks_shared = 0;

  std::span<const BlockId> table_of(const SequenceSnapshot& s) const {
    return std::span(tables).subspan(s.first_block, s.num_blocks);
  }
  std::span<const BlockId> host_table_of(const SequenceSnapshot& s) const {
    return std::span(tables).subspan(s.first_block + s.num_blocks, s.num_host_blocks);
  }
};

// Fills *snapshot, whose memory is used again: nothing is allocated once it has grown. O(blocks +
// entries of tables); step and num_kv_events are the caller's.
void take_snapshot(const Scheduler& scheduler, EngineSnapshot* snapshot);

}  // namespace quire
