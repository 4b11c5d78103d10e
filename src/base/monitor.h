// A value that several threads share, its mutex and its condition in one: the value cannot be
// reached without the lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace quire {

template <class T>
class Monitor {
 public:
  template <class... Args>
  explicit Monitor(Args&&... args) : value_(std::forward<Args>(args)...) {}

  // Runs f(value) under the lock.
  template <class F>
  auto with(F&& f) {
    std::lock_guard lock(mutex_);
    return f(value_);
  }
  template <class F>
  auto with(F&& f) const {
    std::lock_guard lock(mutex_);
    return f(static_cast<const T&>(value_));
  }
  // The same, then wakes every waiter.
  template <class F>
  void update(F&& f) {
    {
      std::lock_guard lock(mutex_);
      f(value_);
    }
    changed_.notify_all();
  }
  // Blocks until ready(value), then returns f(value).
  template <class P, class F>
  auto wait(P&& ready, F&& f) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready(static_cast<const T&>(value_)); });
    return f(value_);
  }
  // The same, but returns f(value) after `timeout` even if it is not ready.
  template <class P, class F>
  auto wait_for(std::chrono::nanoseconds timeout, P&& ready, F&& f) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, timeout, [&] { return ready(static_cast<const T&>(value_)); });
    return f(value_);
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  T value_;
};

}  // namespace quire
