// What must hold of every snapshot.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/snapshot.h"

namespace quire {

// What is wrong with it; empty when nothing is.
inline std::string inconsistency_of(const EngineSnapshot& s) {
  const int num_blocks = static_cast<int>(s.blocks.size());
  if (s.num_free + s.num_cached + s.num_used != num_blocks) return "free + cached + used != N";
  std::vector<int> holders(s.blocks.size(), 0);
  int waiting = 0, running = 0, slots = 0;
  std::map<BlockId, int> host_holders;
  for (const SequenceSnapshot& seq : s.sequences) {
    for (const BlockId block : s.table_of(seq)) ++holders[static_cast<size_t>(block)];
    for (const BlockId block : s.host_table_of(seq)) ++host_holders[block];
    running += seq.state == SequenceState::kRunning;
    waiting += seq.state == SequenceState::kWaiting;
    slots += seq.slot >= 0;
    if (seq.num_computed > seq.num_tokens) return "more tokens computed than there are";
    const bool holds = seq.is_swapped ? seq.num_host_blocks * s.block_size >= seq.num_computed
                                      : seq.num_blocks * s.block_size >= seq.num_computed;
    if (!holds && seq.state != SequenceState::kFinished) return "computed tokens have no block";
  }
  if (running != s.num_running) return "running sequences are miscounted";
  if (waiting < s.num_waiting) return "waiting groups are missing";
  if (static_cast<int>(host_holders.size()) != s.num_host_used) return "host blocks are miscounted";
  int used = 0;
  int64_t held = 0;
  for (size_t i = 0; i < s.blocks.size(); ++i) {
    const BlockState& block = s.blocks[i];
    if (block.ref_count != holders[i]) return "a block's holders are miscounted";
    used += block.ref_count > 0;
    held += block.ref_count > 0 ? block.num_filled : 0;
    if (block.num_filled > s.block_size) return "a block holds more than it can";
    if (block.has_content() && block.parent >= 0 &&
        !s.blocks[static_cast<size_t>(block.parent)].has_content()) {
      return "a block's parent has no content";
    }
  }
  if (used != s.num_used) return "used blocks are miscounted";
  if (held != s.num_tokens_held) return "tokens held are miscounted";
  return "";
}

}  // namespace quire
