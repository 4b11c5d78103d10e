#include "frontend/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/mutants.h"

namespace quire {

StopStrings::StopStrings(std::vector<std::string> stops, bool include_in_output)
    : stops_(std::move(stops)), include_in_output_(include_in_output) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopStrings::push(std::string_view text) {
  if (matched_) return "";
  pending_ += text;
  // The match that begins first wins; of two that begin together, the one listed first.
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = pending_.find(stop);
    if (at < first) {
      first = at;
      matched_ = stop;
    }
  }
  const size_t emit = matched_ ? first + (include_in_output_ ? matched_->size() : 0)
                               : pending_.size() - held_length();
  std::string out = pending_.substr(0, emit);
  pending_.erase(0, emit);
  return out;
}

// Length of the longest suffix of pending_ that begins a stop string.
size_t StopStrings::held_length() const {
  if (mutant("frontend_stop_leaks_part")) return 0;
  size_t held = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(pending_.size(), stop.size() - 1); n > held; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) {
        held = n;
        break;
      }
    }
  }
  return held;
}

std::string StopStrings::finish() { return matched_ ? "" : std::exchange(pending_, ""); }

}  // namespace quire
