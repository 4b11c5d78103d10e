#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "base/cgroup.h"
#include "base/check.h"
#include "base/platform.h"

namespace quire {
namespace {

// About 50 us of pauses before a thread sleeps: longer than the gap between two ops, far shorter
// than what a busy loop costs a neighbour. With more threads than CPUs spinning only delays the
// thread that is waited for.
constexpr int kSpins = 2000;
constexpr int kSpinsOversubscribed = 50;

// The first CPU of the core that `cpu` belongs to; `cpu` itself when the kernel does not say.
std::string core_of(int cpu) {
  std::ifstream in("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                   "/topology/thread_siblings_list");
  std::string siblings;
  if (!(in >> siblings)) return std::to_string(cpu);
  return siblings.substr(0, siblings.find_first_of(",-"));
}

struct Cpus {
  std::vector<int> ordered;
  int num_cores = 0;
};

Cpus find_cpus() {
  Cpus cpus;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // Fails on machines with more CPUs than cpu_set_t holds; then any CPU will do.
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) {
    const int count = std::max(1U, std::thread::hardware_concurrency());
    for (int i = 0; i < count; ++i) cpus.ordered.push_back(i);
    cpus.num_cores = count;
    return cpus;
  }
  std::set<std::string> cores;
  std::vector<int> siblings;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    (cores.insert(core_of(cpu)).second ? cpus.ordered : siblings).push_back(cpu);
  }
  cpus.num_cores = static_cast<int>(cores.size());
  cpus.ordered.insert(cpus.ordered.end(), siblings.begin(), siblings.end());
  return cpus;
}

}  // namespace

std::vector<int> allowed_cpus() { return find_cpus().ordered; }

int default_num_threads() {
  int threads = find_cpus().num_cores;
  if (const auto quota = cgroup_limits().cpus) {
    threads = std::min(threads, static_cast<int>(std::ceil(*quota)));
  }
  return std::max(1, threads);
}

ThreadPool::ThreadPool(int num_threads, bool pin) : num_threads_(num_threads) {
  QUIRE_CHECK(num_threads >= 1);
  const std::vector<int> cpus = allowed_cpus();
  const bool fits = static_cast<size_t>(num_threads) <= cpus.size();
  spins_ = fits ? kSpins : kSpinsOversubscribed;
  try {
    for (int i = 1; i < num_threads; ++i) {
      workers_.emplace_back(&ThreadPool::work, this, i, pin && fits ? cpus[i] : -1);
    }
  } catch (const std::system_error&) {  // the system's limit of threads
    join_workers();                     // a joinable std::thread must not be destroyed
    throw;
  }
}

ThreadPool::~ThreadPool() {
  QUIRE_CHECK(!busy_.load());
  join_workers();
}

void ThreadPool::join_workers() {
  stop_ = true;
  started_.fetch_add(1, std::memory_order_release);
  started_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(void (*body)(void*, int32_t, int32_t), void* arg) {
  QUIRE_CHECK_MSG(!busy_.exchange(true, std::memory_order_acquire),
                  "ThreadPool::run called inside a run, or by two threads at once");
  IeeeFloatMode mode;
  if (num_threads_ > 1) {
    body_ = body;
    arg_ = arg;
    running_.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
    started_.fetch_add(1, std::memory_order_release);
    started_.notify_all();  // a system call only if a worker sleeps
  }
  body(arg, 0, num_threads_);
  if (num_threads_ > 1) await_workers();
  busy_.store(false, std::memory_order_release);
}

void ThreadPool::work(int thread, int cpu) {
  if (cpu >= 0) {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    // Best effort: a refused pin costs speed, not correctness.
    (void)pthread_setaffinity_np(pthread_self(), sizeof(mask), &mask);
  }
  IeeeFloatMode mode;
  uint32_t seen = 0;
  for (;;) {
    seen = await_start(seen);
    if (stop_) return;
    body_(arg_, thread, num_threads_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

uint32_t ThreadPool::await_start(uint32_t seen) {
  for (int i = 0; i < spins_; ++i) {
    const uint32_t now = started_.load(std::memory_order_acquire);
    if (now != seen) return now;
    cpu_pause();
  }
  started_.wait(seen, std::memory_order_acquire);
  return started_.load(std::memory_order_acquire);
}

void ThreadPool::await_workers() {
  for (int i = 0; i < spins_; ++i) {
    if (running_.load(std::memory_order_acquire) == 0) return;
    cpu_pause();
  }
  for (;;) {
    const uint32_t left = running_.load(std::memory_order_acquire);
    if (left == 0) return;
    running_.wait(left, std::memory_order_acquire);
  }
}

}  // namespace quire
