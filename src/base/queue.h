// A bounded queue from many producers to one consumer that takes everything at once.
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/monitor.h"

namespace quire {

enum class PushResult { kOk, kFull, kClosed };

template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Never blocks.
  PushResult try_push(T item) {
    PushResult result = PushResult::kOk;
    state_.update([&](State& s) {
      if (s.closed) {
        result = PushResult::kClosed;
      } else if (s.num_counted >= capacity_) {
        result = PushResult::kFull;
      } else {
        s.items.push_back(std::move(item));
        ++s.num_counted;
      }
    });
    return result;
  }
  // For messages that free places: not counted against the capacity. False once closed.
  bool push_always(T item) {
    bool pushed = false;
    state_.update([&](State& s) {
      if (!s.closed) s.items.push_back(std::move(item)), pushed = true;
    });
    return pushed;
  }
  // Appends what is there to *out; with `block` it waits until there is something or the queue is
  // closed. False once closed and empty.
  bool drain(std::vector<T>* out, bool block) {
    const auto take = [&](State& s) { return take_all(s, out); };
    if (!block) return state_.with(take);
    return state_.wait([](const State& s) { return s.closed || !s.items.empty(); }, take);
  }
  // The same, waiting at most `timeout`.
  bool drain_for(std::vector<T>* out, std::chrono::nanoseconds timeout) {
    return state_.wait_for(
        timeout,
        [](const State& s) { return s.closed || !s.items.empty(); },
        [&](State& s) { return take_all(s, out); });
  }
  // Refuses all later pushes; what is queued can still be drained.
  void close() {
    state_.update([](State& s) { s.closed = true; });
  }

 private:
  struct State {
    std::vector<T> items;
    size_t num_counted = 0;  // of items: those that try_push put there
    bool closed = false;
  };
  static bool take_all(State& s, std::vector<T>* out) {
    for (T& item : s.items) out->push_back(std::move(item));
    const bool open = !s.closed || !s.items.empty();
    s.items.clear();
    s.num_counted = 0;
    return open;
  }
  const size_t capacity_;
  Monitor<State> state_;
};

}  // namespace quire
