// What must hold of the scheduler's beam groups at any moment.
#pragma once

#include <algorithm>
#include <string>

#include "engine/scheduler.h"

namespace quire {

inline std::string find_beam_inconsistency(const Scheduler& scheduler, const BeamGroup& group) {
  const auto holds = [](const auto& list, SequenceId id) {
    return std::ranges::find(list, id) != list.end();
  };
  const Sequence& first = scheduler.sequence(group.beams[0]);
  const bool runs = first.state == SequenceState::kRunning;
  if (group.beams.size() != group.search.beams().size()) return "a beam has no sequence";
  for (size_t b = 0; b < group.beams.size(); ++b) {
    const Sequence& seq = scheduler.sequence(group.beams[b]);
    const auto output = std::span(seq.tokens).subspan(seq.num_prompt);
    if (!std::ranges::equal(output, group.search.beams()[b].tokens)) {
      return "a sequence has other tokens than its beam";
    }
    const bool waits_behind = holds(first.unforked, group.beams[b]);
    const bool in_line = runs     ? holds(scheduler.running(), group.beams[b]) || waits_behind
                         : b == 0 ? holds(scheduler.waiting(), group.beams[b])
                                  : waits_behind;
    if (!in_line) return "a beam is in no line";
    if (seq.num_pending != first.num_pending) return "some beams sample before others";
  }
  for (SequenceId id : group.members) {
    const Sequence& seq = scheduler.sequence(id);
    if (runs != (seq.slot >= 0)) return "a running group lacks a slot, or a waiting one has one";
    if (std::ranges::count(group.beams, id) > 1) return "a sequence is two beams";
    if (holds(group.beams, id)) continue;
    if (seq.table.size() + seq.host_table.size() > 0) return "an idle member holds blocks";
    if (seq.num_in_flight > 0 && seq.num_pending > 0) return "an idle member samples";
  }
  return "";
}

inline std::string find_beam_inconsistency(const Scheduler& scheduler) {
  for (const BeamGroup& group : scheduler.beam_groups()) {
    std::string wrong = find_beam_inconsistency(scheduler, group);
    if (!wrong.empty()) return wrong + " (arrival " + std::to_string(group.arrival) + ")";
  }
  return "";
}

}  // namespace quire
