#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/scheduler_harness.h"

namespace quire {
namespace {

SequenceSpec spec(int num_prompt, int max_tokens, int first_token = 1) {
  SequenceSpec s;
  s.prompt.resize(num_prompt);
  std::iota(s.prompt.begin(), s.prompt.end(), first_token);
  s.sampling.max_tokens = max_tokens;
  s.sampling.seed = fake_salt_seed("");
  s.sampling.ignore_eos = true;
  return s;
}

using SchedulerTest = SteppedScheduler;

TEST_F(SchedulerTest, MixesDecodeWithChunksOfAPromptUnderTheTokenLimit) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 8, .max_model_len = 64}, 64, 4);
  ASSERT_TRUE(scheduler->add(spec(3, 10)).ok());
  EXPECT_EQ(step(), (std::vector<int>{3}));
  ASSERT_TRUE(scheduler->add(spec(20, 10, 30)).ok());
  EXPECT_EQ(step(), (std::vector<int>{1, 7}));
  EXPECT_EQ(step(), (std::vector<int>{1, 7}));
  EXPECT_EQ(step(), (std::vector<int>{1, 6}));
  EXPECT_EQ(step(), (std::vector<int>{1, 1}));
}

TEST_F(SchedulerTest, LongPrefillThresholdLimitsOneSequence) {
  make({.max_num_seqs = 4,
        .max_num_batched_tokens = 32,
        .max_model_len = 64,
        .long_prefill_token_threshold = 5},
       64,
       4);
  ASSERT_TRUE(scheduler->add(spec(12, 4)).ok());
  ASSERT_TRUE(scheduler->add(spec(3, 4, 50)).ok());
  EXPECT_EQ(step(), (std::vector<int>{5, 3}));
  EXPECT_EQ(step(), (std::vector<int>{5, 1}));
  EXPECT_EQ(step(), (std::vector<int>{2, 1}));
}

TEST_F(SchedulerTest, KeepsTheOrderOfArrivalAndTheLimitOfSequences) {
  make({.max_num_seqs = 2, .max_num_batched_tokens = 32, .max_model_len = 64}, 64, 4);
  std::vector<SequenceId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(*scheduler->add(spec(2, 2, 10 * i)));
  step();
  EXPECT_EQ(std::vector<SequenceId>(scheduler->running().begin(), scheduler->running().end()),
            (std::vector<SequenceId>{ids[0], ids[1]}));
  step();
  EXPECT_EQ(committed[0].finish_reason, FinishReason::kLength);
  step();
  EXPECT_EQ(scheduler->running()[0], ids[2]);
}

TEST_F(SchedulerTest, PreemptsTheNewestAndComputesItAgain) {
  make({.max_num_seqs = 2,
        .max_num_batched_tokens = 32,
        .max_model_len = 16,
        .enable_prefix_caching = false},
       4,
       4);
  const SequenceId old = *scheduler->add(spec(7, 9)), young = *scheduler->add(spec(7, 9, 20));
  EXPECT_EQ(step(), (std::vector<int>{7, 7}));
  EXPECT_EQ(step(), (std::vector<int>{1, 1}));  // both fill their second block
  EXPECT_EQ(step(), (std::vector<int>{1}));     // the third block comes from the younger one
  EXPECT_EQ(scheduler->sequence(young).state, SequenceState::kWaiting);
  EXPECT_EQ(scheduler->sequence(young).num_preemptions, 1);
  EXPECT_EQ(scheduler->sequence(young).table.size(), 0);
  EXPECT_EQ(scheduler->stats().num_preemptions, 1);
  while (scheduler->sequence(old).state == SequenceState::kRunning) step();
  EXPECT_EQ(step(), (std::vector<int>{9}));  // prompt and output at once
}

TEST_F(SchedulerTest, AnAdmittedPromptHasBlocksForAllItsChunks) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 4, .max_model_len = 32}, 8, 4);
  ASSERT_TRUE(scheduler->add(spec(24, 1)).ok());
  ASSERT_TRUE(scheduler->add(spec(16, 1, 50)).ok());
  step();
  EXPECT_EQ(scheduler->num_running(), 1);
  while (scheduler->has_work()) step();
  EXPECT_EQ(scheduler->stats().num_preemptions, 0);
}

TEST_F(SchedulerTest, ReusesTheFullBlocksOfAnEarlierPromptButComputesItsLastToken) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 64, .max_model_len = 64}, 16, 4);
  ASSERT_TRUE(scheduler->add(spec(8, 1)).ok());
  EXPECT_EQ(step(), (std::vector<int>{8}));
  ASSERT_TRUE(scheduler->add(spec(8, 1)).ok());
  EXPECT_EQ(step(), (std::vector<int>{1}));  // writes no KV
  EXPECT_EQ(scheduler->stats().prefix_cache_queries, 16);
  EXPECT_EQ(scheduler->stats().prefix_cache_hits, 7);
  ASSERT_TRUE(scheduler->add(spec(9, 1)).ok());
  EXPECT_EQ(step(), (std::vector<int>{1}));
  SequenceSpec salted = spec(9, 1);
  salted.cache_salt = "tenant";
  ASSERT_TRUE(scheduler->add(std::move(salted)).ok());
  EXPECT_EQ(step(), (std::vector<int>{9}));
}

TEST_F(SchedulerTest, BlocksFilledByDecodeServeTheNextTurn) {
  make({.max_num_seqs = 4, .max_num_batched_tokens = 64, .max_model_len = 64}, 16, 4);
  const SequenceId id = *scheduler->add(spec(6, 7));
  std::vector<int32_t> history;
  while (scheduler->has_work()) {
    step();
    history = scheduler->sequence(id).tokens;
  }
  SequenceSpec next = spec(1, 1);
  next.prompt = history;  // 13 tokens, 12 of which were computed
  next.prompt.push_back(5);
  ASSERT_TRUE(scheduler->add(std::move(next)).ok());
  EXPECT_EQ(step(), (std::vector<int>{2}));
}

TEST_F(SchedulerTest, RequestsThatWantAllLogitsSkipTheCacheAndGetEveryRowOnce) {
  make({.max_num_seqs = 2, .max_num_batched_tokens = 64, .max_model_len = 64}, 16, 4);
  ASSERT_TRUE(scheduler->add(spec(12, 1)).ok());
  step();
  SequenceSpec all = spec(12, 1);
  all.wants_all_rows = true;
  ASSERT_TRUE(scheduler->add(std::move(all)).ok());
  EXPECT_EQ(step(), (std::vector<int>{5}));  // one row per sequence and four more
  EXPECT_EQ(batch.logit_rows, (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(step(), (std::vector<int>{5}));
  EXPECT_EQ(step(), (std::vector<int>{2}));
}

TEST_F(SchedulerTest, RefusesWhatCannotFinishAndSaysWhy) {
  make({.max_model_len = 100}, 4, 4);
  EXPECT_NE(scheduler->limits().check(0, {.max_tokens = 1}).message().find("at least 1 token"),
            std::string::npos);
  const Status pool = scheduler->limits().check(10, {.max_tokens = 8});
  EXPECT_EQ(pool.message(),
            "the prompt of 10 tokens and max_tokens 8 need 5 KV blocks, but the whole pool has 4 "
            "blocks of 4 tokens: shorten the prompt, lower max_tokens or raise "
            "--kv-cache-memory-bytes or --gpu-memory-utilization");
  EXPECT_TRUE(
      scheduler->limits().check(10, {.max_tokens = 7}).ok());  // the last token is never computed
  const Status length = scheduler->limits().check(100, {.max_tokens = 1});
  EXPECT_NE(length.message().find("max_model_len is 100"), std::string::npos) << length.message();
  EXPECT_TRUE(scheduler->limits().check(16, {.max_tokens = 0}).ok());
}

TEST_F(SchedulerTest, MaxTokensZeroComputesThePromptAndNothingElse) {
  make({.max_model_len = 64}, 16, 4);
  ASSERT_TRUE(scheduler->add(spec(9, 0)).ok());
  EXPECT_EQ(step(), (std::vector<int>{9}));
  EXPECT_TRUE(batch.logit_rows.empty());
  EXPECT_EQ(committed[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(committed[0].num_new_tokens, 0);
  EXPECT_EQ(scheduler->pool().num_cached(), 2);
  EXPECT_FALSE(scheduler->has_work());
}

TEST_F(SchedulerTest, IsAValue) {
  make({.max_num_seqs = 2, .max_num_batched_tokens = 5, .max_model_len = 40}, 10, 4);
  ASSERT_TRUE(scheduler->add(spec(9, 5)).ok());
  ASSERT_TRUE(scheduler->add(spec(9, 5, 40)).ok());
  step();
  step();
  Scheduler copy = *scheduler;
  EXPECT_EQ(copy, *scheduler);
  EXPECT_EQ(copy.state_hash(), scheduler->state_hash());
  ScheduledBatch copied_batch;
  copy.schedule(&copied_batch);
  EXPECT_NE(copy.state_hash(), scheduler->state_hash());
  scheduler->schedule(&batch);
  EXPECT_EQ(copy, *scheduler);
  EXPECT_EQ(copied_batch.tokens, batch.tokens);
  EXPECT_EQ(copied_batch.block_ids, batch.block_ids);
}

// Two sequences in a pool for one and a half: the second must give up its blocks.
TEST_F(SchedulerTest, AutoSwapsWhereCopyingIsCheaperThanComputing) {
  for (bool copying_is_cheap : {true, false}) {
    SchedulerConfig config{.max_num_seqs = 4, .max_num_batched_tokens = 64, .max_model_len = 64};
    config.preemption_mode = PreemptionMode::kAuto;
    config.num_host_blocks = 16;
    config.swap_seconds_per_block = copying_is_cheap ? 1e-6 : 1e-3;
    make(config, 6, 4);
    scheduler->set_recompute_cost(1e-5);  // a block of 4 tokens: 4e-5
    ASSERT_TRUE(scheduler->add(spec(8, 12)).ok());
    ASSERT_TRUE(scheduler->add(spec(8, 12, 30)).ok());
    while (scheduler->has_work()) step();
    EXPECT_GT(scheduler->stats().num_preemptions, 0);
    EXPECT_EQ(scheduler->stats().num_swapped_out > 0, copying_is_cheap);
  }
}

// The first member has ended and keeps half the pool until its batch is over. The second needs that
// half to grow: it makes way, and the batch is over by that.
TEST_F(SchedulerTest, ABatchWhoseLastMemberFindsNoMemoryBesideEndedOnesStartsAgainInTheSameStep) {
  SchedulerConfig config{.max_num_seqs = 2, .max_num_batched_tokens = 32, .max_model_len = 32};
  config.enable_prefix_caching = false;
  config.kv_policy = KvPolicy::kGrow;
  config.batching = Batching::kStatic;
  make(config, 8, 4);
  ASSERT_TRUE(scheduler->add(spec(16, 1)).ok());
  const SequenceId last = *scheduler->add(spec(4, 9, 40));
  EXPECT_EQ(step(), (std::vector<int>{16, 4}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(step(), (std::vector<int>{1}));
  EXPECT_EQ(scheduler->stats().num_request_batches, 1);
  EXPECT_EQ(step(), (std::vector<int>{9}));  // everything again
  EXPECT_EQ(scheduler->sequence(last).num_preemptions, 1);
  EXPECT_EQ(scheduler->stats().num_request_batches, 2);
  while (scheduler->has_work()) EXPECT_EQ(step().size(), 1u);
}

}  // namespace
}  // namespace quire
