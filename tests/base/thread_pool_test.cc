#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <chrono>
#include <string>
#include <vector>

#include "base/mutants.h"

namespace quire {
namespace {

struct Count {
  ThreadPool* pool = nullptr;
  std::vector<int64_t> calls;
  int32_t num_threads = 0;
};

void count(void* arg, int32_t thread, int32_t num_threads) {
  auto& c = *static_cast<Count*>(arg);
  if (mutant("pool_skips_a_thread") && thread == num_threads - 1) return;
  c.calls[thread] += 1;
  if (thread == 0) c.num_threads = num_threads;
}

TEST(ThreadPool, RunsTheFunctionOnceOnEveryThread) {
  for (int threads : {1, 2, 3, 4, 9}) {
    ThreadPool pool(threads);
    Count c;
    c.calls.resize(threads);
    for (int i = 0; i < 200; ++i) pool.run(count, &c);
    EXPECT_EQ(c.num_threads, threads);
    for (int64_t calls : c.calls) EXPECT_EQ(calls, 200);
  }
}

TEST(ThreadPool, SeesTheCallersWritesAndShowsTheThreadsWrites) {
  ThreadPool pool(3);
  std::vector<int> data(3);
  for (int round = 1; round <= 1000; ++round) {
    for (int& x : data) x = round;
    pool.run(
        [](void* arg, int32_t thread, int32_t) {
          (*static_cast<std::vector<int>*>(arg))[thread] += thread;
        },
        &data);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(data[i], round + i);
  }
}

// 100,000 runs take about 0.1 s on two free cores. On a busy machine a worker waits for its turn,
// so so the best slice counts, and the test gives up after 3 s.
TEST(ThreadPool, RunsAHundredThousandTimesQuickly) {
  using Clock = std::chrono::steady_clock;
  ThreadPool pool(2);
  Count c;
  c.calls.resize(2);
  std::chrono::duration<double> best(1e9);
  const auto start = Clock::now();
  int64_t runs = 0;
  while (runs < 100000 && Clock::now() - start < std::chrono::seconds(3)) {
    const auto slice_start = Clock::now();
    for (int i = 0; i < 20; ++i) pool.run(count, &c);
    best = std::min<std::chrono::duration<double>>(best, Clock::now() - slice_start);
    runs += 20;
  }
  EXPECT_EQ(c.calls[1], runs);
  EXPECT_LT(best.count(), 20 * 2e-3) << "seconds for 20 runs";
  RecordProperty("best_us", std::to_string(best.count() * 1e6 / 20));
  RecordProperty("runs", std::to_string(runs));
}

TEST(ThreadPool, SurvivesManyMoreThreadsThanCpus) {
  ThreadPool pool(16);
  Count c;
  c.calls.resize(16);
  for (int i = 0; i < 500; ++i) pool.run(count, &c);
  for (int64_t calls : c.calls) EXPECT_EQ(calls, 500);
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

TEST(ThreadPool, UsesNoCpuTimeWhileIdle) {
  ThreadPool pool(3);
  Count c;
  c.calls.resize(3);
  pool.run(count, &c);
  usleep(50000);  // the workers have fallen asleep
  const double before = cpu_seconds();
  usleep(200000);
  EXPECT_LT(cpu_seconds() - before, 0.02);
}

TEST(ThreadPoolDeathTest, RefusesANestedRun) {
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        Count c;
        c.pool = &pool;
        c.calls.resize(2);
        pool.run(
            [](void* arg, int32_t thread, int32_t) {
              auto& outer = *static_cast<Count*>(arg);
              if (thread == 0) outer.pool->run(count, arg);
            },
            &c);
      },
      "inside a run");
}

TEST(ThreadPool, ComputesInIeeeModeOnAllThreadsAndRestoresTheCallers) {
  ThreadPool pool(3);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  std::vector<int> modes(3, -1);
  pool.run(
      [](void* arg, int32_t thread, int32_t) {
        volatile float tiny = 1e-38F;
        const bool denormals = tiny * 0.01F != 0;
        volatile float one = 1;
        const bool nearest = one + 1e-9F == 1;
        (*static_cast<std::vector<int>*>(arg))[thread] = denormals && nearest;
      },
      &modes);
  const int restored = std::fegetround();
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(restored, FE_UPWARD);
  EXPECT_EQ(modes, (std::vector<int>{1, 1, 1}));
}

TEST(ThreadPool, PinsWorkersToAllowedCpusButNeverTheCaller) {
  const std::vector<int> cpus = allowed_cpus();
  ASSERT_FALSE(cpus.empty());
  const int threads = static_cast<int>(cpus.size());
  ThreadPool pool(threads, /*pin=*/true);
  std::vector<int> num_cpus(threads);
  pool.run(
      [](void* arg, int32_t thread, int32_t) {
        cpu_set_t mask;
        sched_getaffinity(0, sizeof(mask), &mask);
        (*static_cast<std::vector<int>*>(arg))[thread] = CPU_COUNT(&mask);
      },
      &num_cpus);
  EXPECT_EQ(num_cpus[0], threads);
  for (int i = 1; i < threads; ++i) EXPECT_EQ(num_cpus[i], 1);
}

TEST(ThreadPool, DefaultsToAtLeastOneThreadAndNoMoreThanTheAllowedCpus) {
  EXPECT_GE(default_num_threads(), 1);
  EXPECT_LE(default_num_threads(), static_cast<int>(allowed_cpus().size()));
}

}  // namespace
}  // namespace quire
