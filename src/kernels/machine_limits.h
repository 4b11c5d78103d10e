// What this machine can do at most: the yardsticks of benchmarks ("decode reads 85 % of ...").
#pragma once

#include "base/status.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace quire {

struct MachineLimits {
  double read_gbps = 0;   // 10^9 bytes read from memory a second, by all threads together
  double fma_gflops = 0;  // 10^9 f32 operations a second, multiply and add counted as two
  double int8_gops = 0;   // the same for products of 8-bit weights and activations
  double int16_gops =
      0;  // and of 8-bit weights and 16-bit activations, the way the level does them
};

// The limits on all threads of `pool` with the instructions of the level of `ops` (its name). Takes
// about 0.3 s and 256 MiB; each figure is the best of many short slices, since others may share the
// machine.
Result<MachineLimits> measure_machine_limits(const OpTable& ops, ThreadPool& pool);

}  // namespace quire
