#include "kernels/machine_limits.h"

#include <gtest/gtest.h>

#include "kernels/backend.h"
#include "kernels/op_testing.h"

namespace quire {
namespace {

TEST(MachineLimits, AreMeasuredOnEveryLevelThatRunsHere) {
  ThreadPool pool(2);
  for (const IsaLevel& level : testing::levels_here()) {
    const MachineLimits limits = measure_machine_limits(*level.ops, pool).value();
    EXPECT_GT(limits.read_gbps, 0.1) << level.name;
    EXPECT_LT(limits.read_gbps, 5000) << level.name;
    EXPECT_GT(limits.fma_gflops, 0.1) << level.name;
    EXPECT_GT(limits.int8_gops, 0.1) << level.name;
    EXPECT_GT(limits.int16_gops, 0.1) << level.name;
  }
  EXPECT_GT(measure_machine_limits(ref_ops(), pool).value().fma_gflops, 0.1);
}

}  // namespace
}  // namespace quire
