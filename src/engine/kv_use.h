// What the KV memory holds at one moment, divided as in Figure 2 of the PagedAttention paper (Kwon
// et al., SOSP 2023). Counted in slots: room for K and V of one token in all layers.
#pragma once

#include <cstdint>

#include "engine/scheduler.h"

namespace quire {

struct KvUse {
  int64_t total = 0;     // the sum of all below
  int64_t tokens = 0;    // hold computed tokens; what several sequences share counts once
  int64_t reserved = 0;  // held for tokens that their sequences will come to compute
  int64_t internal = 0;  // held for tokens that never come: lengths over-estimated, last blocks
  int64_t ended = 0;     // held by members of a running batch that have ended
  int64_t rounding = 0;  // external fragmentation: what the buddy allocator added to a region,
  int64_t stranded = 0;  // and what is free though the first waiting request finds no room
  int64_t free = 0;      // free, or cached, and nobody waits for memory

  int64_t external() const { return rounding + stranded; }
  KvUse& operator+=(const KvUse& other);
};

// Between two steps. A sequence's future is what its request told: expected_output_tokens, or
// max_tokens.
KvUse measure_kv_use(const Scheduler& scheduler);

}  // namespace quire
