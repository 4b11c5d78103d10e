// The bookkeeping of a step allocates nothing once it runs: operator new is counted, not timed.
#include <gtest/gtest.h>

#include "allocation/count_allocations.h"
#include "engine/observe.h"
#include "engine/scheduler.h"

namespace quire {
namespace {

constexpr int kBlockSize = 4;

// Decoding sequences whose tokens are all 5, with room for `num_steps` tokens each.
class SteadyState : public testing::Test {
 protected:
  void start(int num_seqs, int n, int num_steps, bool caches = true) {
    const int num_prompt = 37;
    const int length = num_prompt + num_steps + 20;
    scheduler.emplace(SchedulerConfig{.max_num_seqs = num_seqs * n,
                                      .max_num_batched_tokens = 4096,
                                      .max_model_len = length,
                                      .max_logit_rows = num_seqs * n + 1,
                                      .enable_prefix_caching = caches},
                      num_seqs * n * (length / kBlockSize + 1),
                      kBlockSize);
    for (int i = 0; i < num_seqs; ++i) {
      SequenceSpec spec;
      for (int j = 0; j < num_prompt; ++j) spec.prompt.push_back(1 + i * 7 + j);
      spec.sampling.max_tokens = num_steps + 10;
      spec.sampling.n = n;
      ASSERT_TRUE(scheduler->add(std::move(spec)).ok());
    }
    for (int i = 0; i < 8; ++i) step();  // prompts, forks, vectors that grow
    ASSERT_EQ(scheduler->num_running(), num_seqs * n);
  }
  void fill(const ScheduledBatch& batch) {
    const int n = static_cast<int>(batch.sequences.size());
    result.clear(n);
    for (int i = 0; i < n; ++i) {
      if (batch.sequences[i].samples) result.tokens.push_back(5 + i % 3);
      result.token_start[i + 1] = static_cast<int32_t>(result.tokens.size());
    }
  }
  void step() {
    scheduler->schedule(&batch);
    fill(batch);
    scheduler->commit(batch, result, &committed);
  }
  int64_t allocations_of(int num_steps) {
    const int64_t before = num_allocations;
    for (int i = 0; i < num_steps; ++i) step();
    return num_allocations - before;
  }

  std::optional<Scheduler> scheduler;
  ScheduledBatch batch;
  StepResult result;
  std::vector<CommittedSequence> committed;
};

TEST_F(SteadyState, OfDecodingAllocatesNothing) {
  for (const bool caches : {true, false}) {
    start(64, 1, 100, caches);
    EXPECT_EQ(allocations_of(100), 0) << "caches " << caches;
    EXPECT_EQ(scheduler->num_running(), 64);
  }
}

TEST_F(SteadyState, OfGroupsAllocatesNothing) {
  start(8, 4, 100);
  EXPECT_EQ(allocations_of(100), 0);
}

TEST_F(SteadyState, WithOverlappingStepsAllocatesNothing) {
  start(64, 1, 120);
  ScheduledBatch batches[2];
  int64_t before = 0;
  scheduler->schedule(&batches[0]);
  for (int i = 0; i < 100; ++i) {
    if (i == 4) before = num_allocations;
    scheduler->schedule(&batches[(i + 1) % 2]);
    fill(batches[i % 2]);
    scheduler->commit(batches[i % 2], result, &committed);
  }
  EXPECT_EQ(num_allocations - before, 0);
}

TEST_F(SteadyState, WatchedByAReaderAllocatesNothing) {
  start(64, 1, 100);
  EngineSnapshot snapshot;
  take_snapshot(*scheduler, &snapshot);
  snapshot.tables.reserve(snapshot.tables.size() + 64 * 32);
  KvEventHub hub;
  const auto queue = std::make_shared<KvEventQueue>(1 << 16);
  hub.add(queue, &*scheduler);
  for (int i = 0; i < 8; ++i) step();
  hub.publish(0);
  const int64_t before = num_allocations;
  for (int i = 0; i < 80; ++i) {
    step();
    hub.publish(i);
    take_snapshot(*scheduler, &snapshot);
  }
  EXPECT_EQ(num_allocations - before, 0);
}

}  // namespace
}  // namespace quire
