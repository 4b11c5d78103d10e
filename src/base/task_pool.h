// A few threads that run queued tasks in order of arrival; the queue is bounded.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace quire {

class TaskPool {
 public:
  TaskPool(int num_threads, size_t max_queued);
  ~TaskPool();  // runs what is queued, then joins

  // False when max_queued tasks are waiting already.
  bool submit(std::function<void()> task);
  size_t max_queued() const { return max_queued_; }

 private:
  void work();

  const size_t max_queued_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace quire
