// A persistent fork-join pool: run() executes one function on every thread and returns when all
// have returned. Made for kernels: about a microsecond a run while busy, no CPU time while idle.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace quire {

// CPUs this process may use, by its affinity mask: one of each physical core first, then their
// hyper-thread siblings.
std::vector<int> allowed_cpus();
// Physical cores in the affinity mask, or the cgroup's CPU quota (rounded up) where that is less;
// at least 1. A second hyper-thread of a core adds nothing to FMA or read bandwidth.
int default_num_threads();

class ThreadPool {
 public:
  // `pin` binds worker i to the i-th of allowed_cpus(); the calling thread is never bound. Leave
  // it off inside a host program that owns its threads' placement. Ignored when there are more
  // threads than CPUs. Throws std::system_error when the system allows no further thread.
  explicit ThreadPool(int num_threads, bool pin = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(arg, thread, num_threads) once for each thread, thread 0 on the caller. Not
  // re-entrant: a nested or concurrent call is a bug and fatal. All threads compute in IEEE mode
  // (base/platform.h); the caller's own mode is restored on return.
  void run(void (*body)(void* arg, int32_t thread, int32_t num_threads), void* arg);

 private:
  void work(int thread, int cpu);
  void join_workers();
  uint32_t await_start(uint32_t seen);
  void await_workers();

  const int num_threads_;
  int spins_;
  void (*body_)(void*, int32_t, int32_t) = nullptr;
  void* arg_ = nullptr;
  bool stop_ = false;
  std::atomic<bool> busy_{false};
  alignas(64) std::atomic<uint32_t> started_{0};  // run() adds one
  alignas(64) std::atomic<uint32_t> running_{0};  // workers that have not finished this run
  std::vector<std::thread> workers_;
};

}  // namespace quire
