#include "engine/kv_use.h"

#include <gtest/gtest.h>

#include <numeric>

#include "simulation/fake_model_runner.h"

namespace quire {
namespace {

class KvUseTest : public testing::Test {
 protected:
  void make(KvPolicy policy, int num_blocks, int max_model_len, Batching batching = {}) {
    SchedulerConfig config;
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 64;
    config.max_model_len = max_model_len;
    config.max_logit_rows = 16;
    config.enable_prefix_caching = policy == KvPolicy::kPaged;
    config.kv_policy = policy;
    config.batching = batching;
    RunnerInfo info;
    info.num_blocks = num_blocks;
    info.block_size = 4;
    info.vocab_size = 100;
    runner.emplace(info);
    scheduler.emplace(config, num_blocks, 4);
  }
  void add(int num_prompt, int max_tokens, int n = 1, int expected = 0) {
    SequenceSpec spec;
    spec.prompt.resize(num_prompt);
    std::iota(spec.prompt.begin(), spec.prompt.end(), 100 * num_added++ % 90);
    spec.sampling.max_tokens = max_tokens;
    spec.sampling.n = n;
    spec.sampling.seed = 1;
    spec.sampling.ignore_eos = true;
    if (expected > 0) spec.sampling.expected_output_tokens = expected;
    ASSERT_TRUE(scheduler->add(std::move(spec)).ok());
  }
  KvUse step() {
    scheduler->schedule(&batch);
    EXPECT_TRUE(runner->launch(batch).ok());
    EXPECT_TRUE(runner->collect(&result).ok());
    scheduler->commit(batch, result, &committed);
    const KvUse use = measure_kv_use(*scheduler);
    EXPECT_EQ(use.total,
              use.tokens + use.reserved + use.internal + use.ended + use.external() + use.free);
    return use;
  }

  int num_added = 0;
  std::optional<FakeModelRunner> runner;
  std::optional<Scheduler> scheduler;
  ScheduledBatch batch;
  StepResult result;
  std::vector<CommittedSequence> committed;
};

TEST_F(KvUseTest, PagedWastesTheEndOfTheLastBlockOnly) {
  make(KvPolicy::kPaged, 10, 40);
  add(5, 2);  // 6 tokens in 2 blocks, of which 5 after the first step
  const KvUse use = step();
  EXPECT_EQ(use.tokens, 5);
  EXPECT_EQ(use.reserved, 1);
  EXPECT_EQ(use.internal, 2);
  EXPECT_EQ(use.external(), 0);
  EXPECT_EQ(use.free, 32);
}

TEST_F(KvUseTest, SharedBlocksCountOnce) {
  make(KvPolicy::kPaged, 16, 40);
  add(8, 3, 3);
  EXPECT_EQ(step().tokens, 8);
  EXPECT_EQ(step().tokens, 8 + 3 * 1);  // two shared blocks, one of each answer
}

// A region of 40 tokens, rounded to 16 blocks = 64: 7 tokens will be computed.
TEST_F(KvUseTest, MaxReservesWhatNeverComes) {
  make(KvPolicy::kMax, 20, 40);
  add(5, 3);
  add(5, 3);
  const KvUse use = step();
  EXPECT_EQ(use.tokens, 5);
  EXPECT_EQ(use.reserved, 2);
  EXPECT_EQ(use.internal, 33);
  EXPECT_EQ(use.rounding, 24);
  EXPECT_EQ(use.stranded, 16);  // 4 free blocks, and the other request needs 16
  EXPECT_EQ(use.free, 0);
}

TEST_F(KvUseTest, Pow2RoundsTheOutputUpAndOracleDoesNot) {
  make(KvPolicy::kPow2, 64, 128);
  add(6, 100, 1, 9);  // 6 + 16 = 22 tokens in 6 blocks, rounded to 8; 14 are computed
  KvUse use = step();
  EXPECT_EQ(use.tokens, 6);
  EXPECT_EQ(use.reserved, 8);
  EXPECT_EQ(use.internal, 10);
  EXPECT_EQ(use.rounding, 8);
  make(KvPolicy::kOracle, 64, 128);
  add(6, 100, 1, 9);  // 15 tokens in 4 blocks
  use = step();
  EXPECT_EQ(use.tokens, 6);
  EXPECT_EQ(use.reserved, 8);
  EXPECT_EQ(use.internal, 2);
  EXPECT_EQ(use.rounding, 0);
}

TEST_F(KvUseTest, EachAnswerOfAContiguousGroupHasItsOwnPrompt) {
  make(KvPolicy::kOracle, 16, 40);
  add(8, 4, 2);
  step();
  EXPECT_EQ(step().tokens, 2 * 9);
}

TEST_F(KvUseTest, MembersOfAStaticBatchKeepTheirMemoryUntilTheLastEnds) {
  make(KvPolicy::kPaged, 16, 40, Batching::kStatic);
  add(4, 1);
  add(4, 3);
  KvUse use = step();
  EXPECT_EQ(use.ended, 4);
  EXPECT_EQ(use.tokens, 4);
  step();
  use = step();
  EXPECT_EQ(scheduler->num_running(), 0);
  EXPECT_EQ(use.free, use.total);
}

TEST_F(KvUseTest, WithoutACacheNothingIsKept) {
  make(KvPolicy::kOff, 16, 40);
  add(5, 3);
  KvUse between = step();
  EXPECT_EQ(between.free, between.total);
  EXPECT_EQ(batch.tokens.size(), 5u);
  between = step();
  EXPECT_EQ(between.free, between.total);
  EXPECT_EQ(batch.tokens.size(), 6u);
  Scheduler in_step = *scheduler;
  in_step.schedule(&batch);
  EXPECT_EQ(measure_kv_use(in_step).tokens, 7);
  EXPECT_EQ(scheduler->stats().num_computed_tokens, 11);
}

}  // namespace
}  // namespace quire
