// A scheduler and a fake model, stepped by hand.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "engine/scheduler.h"
#include "simulation/fake_model_runner.h"

namespace quire {

class SteppedScheduler : public testing::Test {
 protected:
  explicit SteppedScheduler(int vocab_size = 100) : vocab_size(vocab_size) {}
  void make(SchedulerConfig config, int num_blocks, int block_size) {
    RunnerInfo info;
    info.num_blocks = num_blocks;
    info.block_size = block_size;
    info.vocab_size = vocab_size;
    info.max_model_len = config.max_model_len;
    info.max_logit_rows = config.max_logit_rows = config.max_num_seqs + 4;
    runner.emplace(info);
    runner->set_num_host_blocks(config.num_host_blocks);
    scheduler.emplace(config, num_blocks, block_size);
  }
  // Tokens that each sequence of the step computed.
  std::vector<int> step() {
    scheduler->schedule(&batch);
    std::vector<int> counts;
    for (const ScheduledSequence& s : batch.sequences) counts.push_back(s.num_tokens);
    if (batch.empty()) return counts;
    EXPECT_TRUE(runner->launch(batch).ok());
    EXPECT_TRUE(runner->collect(&result).ok());
    scheduler->commit(batch, result, &committed);
    return counts;
  }

  const int vocab_size;
  std::optional<FakeModelRunner> runner;
  std::optional<Scheduler> scheduler;
  ScheduledBatch batch;
  StepResult result;
  std::vector<CommittedSequence> committed;
};

}  // namespace quire
