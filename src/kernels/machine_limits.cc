#include "kernels/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/memory.h"
#include "kernels/cpu/limits.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

// Far larger than any cache; each thread reads its own part.
constexpr int64_t kBufferBytes = int64_t{256} << 20;
constexpr auto kReadTime = std::chrono::milliseconds(110);
constexpr auto kComputeTime = std::chrono::milliseconds(60);
// A slice of 0.2 ms with vectors: far longer than a fork, short enough to fit between neighbours.
constexpr int64_t kComputeRounds = 100000;

struct Slice {
  const cpu::LimitKernels* kernels;
  unsigned char* buffer;
  int64_t bytes_per_thread;
  int64_t (*compute)(int64_t rounds);
  int64_t operations;  // of one thread
};

void touch(void* arg, int32_t thread, int32_t) {
  const auto& slice = *static_cast<Slice*>(arg);
  std::memset(slice.buffer + thread * slice.bytes_per_thread,
              1,
              static_cast<size_t>(slice.bytes_per_thread));
}

void read(void* arg, int32_t thread, int32_t) {
  const auto& slice = *static_cast<Slice*>(arg);
  slice.kernels->read(slice.buffer + thread * slice.bytes_per_thread, slice.bytes_per_thread);
}

void compute(void* arg, int32_t thread, int32_t) {
  auto& slice = *static_cast<Slice*>(arg);
  const int64_t operations = slice.compute(kComputeRounds);
  if (thread == 0) slice.operations = operations;
}

// The shortest of the slices that fit in `time`, in seconds; at least three.
double best_seconds(ThreadPool& pool,
                    Clock::duration time,
                    void (*body)(void*, int32_t, int32_t),
                    Slice* slice) {
  std::chrono::duration<double> best(1e9);
  const auto end = Clock::now() + time;
  for (int i = 0; i < 3 || Clock::now() < end; ++i) {
    const auto start = Clock::now();
    pool.run(body, slice);
    best = std::min<std::chrono::duration<double>>(best, Clock::now() - start);
  }
  return best.count();
}

// 10^9 operations a second of all threads.
double compute_gops(ThreadPool& pool, int64_t (*kernel)(int64_t), Slice* slice) {
  slice->compute = kernel;
  const double seconds = best_seconds(pool, kComputeTime, compute, slice);
  return static_cast<double>(slice->operations) * pool.num_threads() / seconds * 1e-9;
}

}  // namespace

Result<MachineLimits> measure_machine_limits(const OpTable& ops, ThreadPool& pool) {
  const int threads = pool.num_threads();
  const int64_t unit = cpu::kLimitReadUnit;
  Slice slice{};
  slice.kernels = &cpu::limit_kernels(ops.name);
  slice.bytes_per_thread = kBufferBytes / threads / unit * unit;
  QUIRE_ASSIGN_OR_RETURN(
      HugeBuffer buffer,
      HugeBuffer::allocate(slice.bytes_per_thread * threads, "the measurement of read bandwidth"));
  slice.buffer = buffer.data();
  pool.run(touch, &slice);

  MachineLimits limits;
  const auto bytes = static_cast<double>(buffer.size());
  limits.read_gbps = bytes / best_seconds(pool, kReadTime, read, &slice) * 1e-9;
  limits.fma_gflops = compute_gops(pool, slice.kernels->fma, &slice);
  limits.int8_gops = compute_gops(pool, slice.kernels->int8, &slice);
  limits.int16_gops = compute_gops(pool, slice.kernels->int16, &slice);
  return limits;
}

}  // namespace quire
