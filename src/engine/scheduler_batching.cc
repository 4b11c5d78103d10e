// Request-level batches (engine/policies.h): who may join, and when a batch is over. Members that
// have ended keep their memory and their slot until then.
#include <algorithm>

#include "base/mutants.h"
#include "engine/scheduler.h"

namespace quire {

// At the start of a step: may a batch begin, and how many requests may it have?
void Scheduler::open_batch(double now) {
  if (config_.batching == Batching::kContinuous || !running_.empty()) return;
  batch_places_ = 0;
  const auto is_over = [](const Sequence& s) { return s.state == SequenceState::kFinished; };
  if (waiting_.empty() || std::ranges::any_of(sequences_, is_over)) return;
  if (batch_start_time(now) > now) return;
  batch_places_ = std::min(config_.batch_size, static_cast<int>(waiting_.size()));
  ++stats_.num_request_batches;
}

// When the next batch may start, if no other request arrives.
double Scheduler::batch_start_time(double now) const {
  const bool is_full = static_cast<int>(waiting_.size()) >= config_.batch_size;
  if (config_.batching != Batching::kDynamic || is_full) return now;
  if (mutant("model_check_batch_ignores_window")) return now;
  return sequences_[waiting_.front()].submit_time + config_.batch_window;
}

std::optional<double> Scheduler::waits_until(double now) const {
  if (!running_.empty() || waiting_.empty() || config_.batching != Batching::kDynamic) {
    return std::nullopt;
  }
  const double start = batch_start_time(now);
  return start > now ? std::optional<double>(start) : std::nullopt;
}

bool Scheduler::takes_another_request() const {
  return config_.batching == Batching::kContinuous || batch_places_ > 0;
}

// A request has joined the batch, or found no room: then the batch is complete.
void Scheduler::count_in_batch(bool admitted) {
  if (config_.batching == Batching::kContinuous) return;
  if (admitted && mutant("model_check_batch_takes_late_requests")) return;
  batch_places_ = admitted ? batch_places_ - 1 : 0;
}

// An ended sequence that no launched step contains gives everything back: at once, or with
// request-level batches, unless it was cancelled, when the last member has ended.
void Scheduler::release_ended(SequenceId id) {
  if (sequences_[id].num_in_flight > 0) return;
  const bool is_cancelled = sequences_[id].finish_reason == FinishReason::kAborted;
  const bool is_kept = config_.batching != Batching::kContinuous && !is_cancelled;
  if (is_kept && !running_.empty()) return;
  release(id);
}

void Scheduler::end_batch_if_over() {
  if (config_.batching == Batching::kContinuous || !running_.empty()) return;
  for (SequenceId id = 0; id < static_cast<SequenceId>(sequences_.size()); ++id) {
    const Sequence& seq = sequences_[id];
    if (seq.state == SequenceState::kFinished && seq.num_in_flight == 0) release(id);
  }
}

// After the running members were given what there is: nobody runs, and ended ones hold memory.
bool Scheduler::ends_batch_by_making_way() const {
  if (mutant("model_check_last_member_waits")) return false;
  if (config_.batching == Batching::kContinuous || !running_.empty()) return false;
  return std::ranges::any_of(sequences_, [](const Sequence& s) {
    return s.state == SequenceState::kFinished && s.num_in_flight == 0;
  });
}

}  // namespace quire
