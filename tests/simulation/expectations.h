// What must come out of a workload, request by request, without a scheduler.
#pragma once

#include <cstdint>
#include <vector>

#include "simulation/beam_reference.h"
#include "simulation/workload.h"

namespace quire {

inline constexpr int32_t kEos = 0;

// What answer `index` to the request must be if nobody cancels it.
std::vector<int32_t> expected_output(const Workload& w, const SimRequest& r, int index);
// The answers of the beam search alone, at most n.
std::vector<ReferenceAnswer> expected_beams(const Workload& w, const SimRequest& r);
// Sequences that run at once.
int num_sequences(const SimRequest& r);
// The engine must accept exactly these.
bool can_ever_finish(const Workload& w, const SimRequest& r);

}  // namespace quire
