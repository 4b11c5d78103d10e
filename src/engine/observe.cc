#include "engine/observe.h"

#include <algorithm>
#include <utility>

#include "base/mutants.h"

namespace quire {

void SnapshotExchange::fill(const Scheduler& scheduler, int64_t step, int64_t num_kv_events) {
  state_.update([&](State& s) {
    take_snapshot(scheduler, &s.back);
    s.back.step = step;
    s.back.num_kv_events = num_kv_events;
    s.filled = true;
  });
}

bool SnapshotExchange::take(EngineSnapshot* front) {
  return state_.with([&](State& s) {
    if (!s.filled) return false;
    std::swap(*front, s.back);
    s.filled = false;
    return true;
  });
}

void SnapshotExchange::wait() {
  state_.wait([](const State& s) { return s.filled; }, [](State&) {});
}

Status SnapshotReader::ask() {
  if (asked_) return Status();
  if (!ask_(exchange_)) return unavailable("the engine has stopped");
  asked_ = true;
  return Status();
}

Result<const EngineSnapshot*> SnapshotReader::read() {
  QUIRE_RETURN_IF_ERROR(ask());
  exchange_->wait();
  exchange_->take(&front_);
  asked_ = false;
  return &front_;
}

Result<const EngineSnapshot*> SnapshotReader::poll() {
  QUIRE_RETURN_IF_ERROR(ask());
  if (!exchange_->take(&front_)) return nullptr;
  asked_ = false;
  return &front_;
}

void KvEventQueue::deliver(std::span<const KvEvent> events, int64_t num_lost) {
  state_.update([&](State& s) {
    const int64_t before = s.log.num_dropped();
    for (const KvEvent& event : events) s.log.push(event);
    s.num_dropped += num_lost + s.log.num_dropped() - before;
  });
}

void KvEventQueue::close() {
  state_.update([](State& s) { s.closed = true; });
}

bool KvEventQueue::take(std::chrono::nanoseconds timeout, KvEventLog* events) {
  events->clear();
  return state_.wait_for(
      timeout,
      [](const State& s) { return s.closed || !s.log.events().empty(); },
      [&](State& s) {
        std::swap(*events, s.log);
        return !events->events().empty();
      });
}

int64_t KvEventQueue::num_dropped() const {
  return state_.with([](const State& s) { return s.num_dropped; });
}

bool KvEventQueue::is_closed() const {
  return state_.with([](const State& s) { return s.closed; });
}

KvEventSubscription::KvEventSubscription(std::shared_ptr<KvEventQueue> queue,
                                         std::function<void()> unsubscribe)
    : queue_(std::move(queue)), front_(queue_->capacity()), unsubscribe_(std::move(unsubscribe)) {}

KvEventSubscription::~KvEventSubscription() {
  if (queue_ != nullptr) unsubscribe_();
}

std::span<const KvEvent> KvEventSubscription::next(std::chrono::nanoseconds timeout) {
  queue_->take(timeout, &front_);
  return front_.events();
}

void KvEventHub::add(std::shared_ptr<KvEventQueue> queue, Scheduler* scheduler) {
  if (log_ == nullptr) {
    log_ = std::make_unique<KvEventLog>(kMostAStep);
    scheduler->set_event_log(log_.get());
  }
  queues_.push_back(std::move(queue));
}

void KvEventHub::remove(const KvEventQueue* queue, Scheduler* scheduler) {
  std::erase_if(queues_, [&](const auto& q) { return q.get() == queue; });
  if (!queues_.empty() || mutant("engine_events_never_end")) return;
  scheduler->set_event_log(nullptr);
  log_.reset();
  num_lost_ = 0;
}

void KvEventHub::publish(int64_t step) {
  if (log_ == nullptr || log_->events().empty()) return;
  log_->set_step(step);
  const int64_t lost = log_->num_dropped() - num_lost_;
  num_lost_ += lost;
  for (const auto& queue : queues_) queue->deliver(log_->events(), lost);
  num_published_ += static_cast<int64_t>(log_->events().size()) + lost;
  log_->clear();
}

void KvEventHub::close() {
  for (const auto& queue : queues_) queue->close();
}

}  // namespace quire
