#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "simulation/workload.h"

namespace quire {
namespace {

int64_t env(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoll(value) : otherwise;
}

// QUIRE_SIM_WORKLOADS: how many; QUIRE_SIM_SEED: only the one with this seed.
TEST(Simulation, RandomWorkloadsKeepEveryInvariantAndGiveEveryTokenOnce) {
  const int64_t only = env("QUIRE_SIM_SEED", -1);
  const int64_t count = only >= 0 ? 1 : env("QUIRE_SIM_WORKLOADS", 20000);
  const int64_t first = only >= 0 ? only : 1;
  SimCounters counters;
  for (int64_t seed = first; seed < first + count; ++seed) {
    const Workload workload = random_workload(seed);
    const std::string failure = run_workload(workload, &counters);
    if (failure.empty()) continue;
    const Workload small = shrink(workload);
    FAIL() << "seed " << seed << ": " << failure << "\nreplay with QUIRE_SIM_SEED=" << seed
           << "\nshrunk: " << run_workload(small) << "\n"
           << describe(small);
  }
  std::cout << "seeds " << first << ".." << first + count - 1 << ": " << counters.steps
            << " steps, " << counters.finished << " finished, " << counters.cancelled
            << " cancelled, " << counters.beam_searches << " beam searches, " << counters.refused
            << " refused, " << counters.preemptions << " preemptions, " << counters.prefix_hits
            << " prefix tokens hit, " << counters.evictions << " evictions, " << counters.copies
            << " copies on write, " << counters.swapped_out << " blocks swapped out, "
            << counters.swapped_in << " in\n";
  if (only >= 0 || count < 1000) return;
  // The workloads reach what they are made to reach.
  EXPECT_GT(counters.finished, count);
  EXPECT_GT(counters.cancelled, count / 4);
  EXPECT_GT(counters.refused, count / 10);
  EXPECT_GT(counters.preemptions, count / 4);
  EXPECT_GT(counters.prefix_hits, count / 4);
  EXPECT_GT(counters.evictions, count / 4);
  EXPECT_GT(counters.beam_searches, count / 4);
  EXPECT_GT(counters.copies, count / 20);
  EXPECT_GT(counters.swapped_in, count / 20);
}

class Policies : public testing::TestWithParam<KvPolicy> {};

// Every policy gives the same tokens: those of the fake model's definition.
TEST_P(Policies, RandomWorkloadsGiveTheSameTokensUnderEveryMemoryPolicyAndBatching) {
  const int64_t only = env("QUIRE_SIM_SEED", -1);
  const int64_t count = only >= 0 ? 1 : env("QUIRE_SIM_WORKLOADS", 20000) / 8;
  const int64_t first = only >= 0 ? only : 1;
  SimCounters counters;
  for (int64_t seed = first; seed < first + count; ++seed) {
    const Workload workload = with_policy(random_workload(seed), GetParam());
    const std::string failure = run_workload(workload, &counters);
    if (failure.empty()) continue;
    const Workload small = shrink(workload);
    FAIL() << "seed " << seed << ": " << failure << "\nreplay with QUIRE_SIM_SEED=" << seed
           << "\nshrunk: " << run_workload(small) << "\n"
           << describe(small);
  }
  std::cout << counters.steps << " steps, " << counters.finished << " finished, "
            << counters.refused << " refused, " << counters.preemptions << " preemptions, "
            << counters.copies << " copies\n";
  if (only >= 0 || count < 1000) return;
  EXPECT_GT(counters.finished, count);
  const bool may_preempt = GetParam() == KvPolicy::kPaged || GetParam() == KvPolicy::kGrow ||
                           GetParam() == KvPolicy::kOff;
  EXPECT_EQ(counters.preemptions > 0, may_preempt);
  EXPECT_EQ(counters.copies > 0, GetParam() != KvPolicy::kOff);
}

INSTANTIATE_TEST_SUITE_P(All,
                         Policies,
                         testing::Values(KvPolicy::kPaged,
                                         KvPolicy::kMax,
                                         KvPolicy::kPow2,
                                         KvPolicy::kOracle,
                                         KvPolicy::kGrow,
                                         KvPolicy::kOff),
                         [](const auto& info) { return std::string(name_of(info.param)); });

Workload crowded_workload() {
  Workload w;
  w.num_blocks = 5;
  w.block_size = 2;
  w.max_num_seqs = 3;
  w.max_num_batched_tokens = 5;
  w.max_model_len = 10;
  for (int i = 0; i < 3; ++i) {
    SimRequest r;
    r.prompt = {1, 2, 3, i};
    r.max_tokens = 6;
    r.ignore_eos = true;
    w.requests.push_back(r);
  }
  return w;
}

TEST(Simulation, CancelAtEveryPointOfACrowdedRun) {
  int num_runs = 0;
  for (int depth = 1; depth <= 2; ++depth) {
    for (int victim = 0; victim < 3; ++victim) {
      for (int step = 0; step < 24; ++step) {
        for (bool between : {false, true}) {
          Workload w = crowded_workload();
          w.depth = depth;
          w.requests[victim].cancel_step = step;
          w.requests[victim].cancel_between = between;
          EXPECT_EQ(run_workload(w), "") << describe(w);
          ++num_runs;
        }
      }
    }
  }
  EXPECT_EQ(num_runs, 2 * 3 * 24 * 2);
}

TEST(Simulation, TheCrowdedRunPreempts) {
  SimCounters counters;
  EXPECT_EQ(run_workload(crowded_workload(), &counters), "");
  EXPECT_GT(counters.preemptions, 0);
  EXPECT_EQ(counters.finished, 3);
}

}  // namespace
}  // namespace quire
