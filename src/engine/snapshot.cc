#include "engine/snapshot.h"

#include <algorithm>

#include "base/mutants.h"

namespace quire {

namespace {

void append(std::span<const BlockId> blocks, std::vector<BlockId>* tables) {
  tables->insert(tables->end(), blocks.begin(), blocks.end());
}

void add_sequence(SequenceId id, const Sequence& seq, EngineSnapshot* s) {
  s->sequences.push_back({.id = id,
                          .arrival = seq.arrival,
                          .sample_index = seq.sample_index,
                          .state = seq.state,
                          .is_swapped = seq.is_swapped,
                          .slot = seq.slot,
                          .num_prompt = seq.num_prompt,
                          .num_tokens = seq.num_tokens(),
                          .num_computed = seq.num_computed,
                          .num_cached_tokens = seq.num_cached_tokens,
                          .num_preemptions = seq.num_preemptions,
                          .first_block = static_cast<int32_t>(s->tables.size()),
                          .num_blocks = seq.table.size(),
                          .num_host_blocks = seq.host_table.size()});
  append(seq.table.blocks(), &s->tables);
  append(seq.host_table.blocks(), &s->tables);
  // Blocks behind the computed tokens are not full, unless others filled them (a prompt that is
  // wholly cached, whose last token is computed again).
  for (int i = seq.num_computed / s->block_size; i < seq.table.size(); ++i) {
    BlockState& block = s->blocks[seq.table[i]];
    if (block.has_content()) continue;
    const int filled = std::max(0, seq.num_computed - i * s->block_size);
    block.num_filled = static_cast<uint16_t>(std::min(filled, s->block_size));
  }
}

}  // namespace

void take_snapshot(const Scheduler& scheduler, EngineSnapshot* s) {
  const BlockPool& pool = scheduler.pool();
  s->block_size = pool.block_size();
  s->num_free = pool.num_free();
  s->num_cached = pool.num_cached();
  s->num_used = pool.num_used();
  s->num_host_blocks = scheduler.host_pool().num_blocks();
  s->num_host_used = scheduler.host_pool().num_used();
  s->num_running = scheduler.num_running();
  s->num_waiting = scheduler.num_waiting();
  s->num_evictions = pool.num_evictions();
  s->blocks.resize(pool.num_blocks());
  pool.read_states(s->blocks);
  s->sequences.clear();
  s->tables.clear();
  const auto sequences = scheduler.sequences();
  for (SequenceId id = 0; id < static_cast<SequenceId>(sequences.size()); ++id) {
    if (sequences[id].state == SequenceState::kUnused) continue;
    if (mutant("engine_snapshot_forgets_waiting") && sequences[id].slot < 0) continue;
    add_sequence(id, sequences[id], s);
  }
  s->num_tokens_held = s->num_blocks_shared = 0;
  for (const BlockState& block : s->blocks) {
    const bool used = block.ref_count > 0;
    s->num_tokens_held += used ? block.num_filled : 0;
    s->num_blocks_shared += used ? block.ref_count - 1 : 0;
  }
  s->num_slots_wasted = int64_t{s->num_used} * s->block_size - s->num_tokens_held;
}

}  // namespace quire
