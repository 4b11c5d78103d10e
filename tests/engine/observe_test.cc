#include "engine/observe.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>

#include "engine/engine_harness.h"
#include "engine/observing.h"

namespace quire {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

SequenceSpec spec(int num_prompt, int max_tokens, int n = 1) {
  SequenceSpec s;
  for (int i = 0; i < num_prompt; ++i) s.prompt.push_back(i + 1);
  s.sampling.max_tokens = max_tokens;
  s.sampling.seed = fake_salt_seed("");
  s.sampling.ignore_eos = true;
  s.sampling.n = n;
  return s;
}

RunnerInfo runner_info(int num_blocks, int block_size, int num_host_blocks = 0) {
  RunnerInfo info;
  info.num_blocks = num_blocks;
  info.block_size = block_size;
  info.vocab_size = 100;
  info.max_model_len = 256;
  info.max_logit_rows = 16;
  info.num_host_blocks = num_host_blocks;
  return info;
}

// A scheduler and a fake model, stepped by hand.
struct Stepper {
  explicit Stepper(int num_blocks, SchedulerConfig config = {})
      : runner(runner_info(num_blocks, 4)), scheduler(with_rows(config), num_blocks, 4) {
    runner.set_num_host_blocks(config.num_host_blocks);
  }
  static SchedulerConfig with_rows(SchedulerConfig config) {
    config.max_num_seqs = 8;
    config.max_logit_rows = 16;
    return config;
  }
  void step() {
    scheduler.schedule(&batch);
    if (batch.empty()) return;
    EXPECT_TRUE(runner.launch(batch).ok());
    EXPECT_TRUE(runner.collect(&result).ok());
    scheduler.commit(batch, result, &committed);
  }
  FakeModelRunner runner;
  Scheduler scheduler;
  ScheduledBatch batch;
  StepResult result;
  std::vector<CommittedSequence> committed;
};

TEST(Snapshot, ShowsTheSchedulersPoolTablesAndSequences) {
  Stepper run(32);
  ASSERT_TRUE(run.scheduler.add(spec(10, 20, 3)).ok());
  ASSERT_TRUE(run.scheduler.add(spec(10, 20)).ok());
  for (int i = 0; i < 4; ++i) run.step();
  EngineSnapshot snapshot;
  take_snapshot(run.scheduler, &snapshot);
  EXPECT_EQ(inconsistency_of(snapshot), "");
  const BlockPool& pool = run.scheduler.pool();
  ASSERT_EQ(snapshot.blocks.size(), 32U);
  for (BlockId id = 0; id < 32; ++id) {
    EXPECT_EQ(snapshot.blocks[id].ref_count, pool.ref_count(id));
    EXPECT_EQ(snapshot.blocks[id].has_content(), pool.has_content(id));
    EXPECT_EQ(snapshot.blocks[id].hash, pool.hash(id));
  }
  ASSERT_EQ(snapshot.sequences.size(), 4U);
  for (const SequenceSnapshot& s : snapshot.sequences) {
    const Sequence& seq = run.scheduler.sequence(s.id);
    const auto table = snapshot.table_of(s);
    EXPECT_TRUE(std::ranges::equal(table, seq.table.blocks()));
    EXPECT_EQ(s.num_computed, seq.num_computed);
    EXPECT_EQ(s.sample_index, seq.sample_index);
  }
}

TEST(Snapshot, CountsTokensHeldAndSlotsWastedOncePerBlock) {
  Stepper run(32);
  ASSERT_TRUE(run.scheduler.add(spec(10, 20, 3)).ok());
  run.step();  // 10 tokens in 3 blocks that three sequences hold: 2 slots are empty
  EngineSnapshot snapshot;
  take_snapshot(run.scheduler, &snapshot);
  EXPECT_EQ(snapshot.num_used, 3);
  EXPECT_EQ(snapshot.num_tokens_held, 10);
  EXPECT_EQ(snapshot.num_slots_wasted, 2);
  EXPECT_EQ(snapshot.num_blocks_shared, 6);
  run.step();  // each writes its own eleventh token: two copies of the third block
  take_snapshot(run.scheduler, &snapshot);
  EXPECT_EQ(snapshot.num_used, 5);
  EXPECT_EQ(snapshot.num_tokens_held, 8 + 3 * 3);
  EXPECT_EQ(snapshot.num_slots_wasted, 3);
}

TEST(Snapshot, ShowsWaitingAndSwappedSequences) {
  Stepper run(8, {.preemption_mode = PreemptionMode::kSwap, .num_host_blocks = 16});
  ASSERT_TRUE(run.scheduler.add(spec(12, 20)).ok());
  ASSERT_TRUE(run.scheduler.add(spec(13, 15)).ok());
  bool seen = false;
  EngineSnapshot snapshot;
  while (run.scheduler.has_work() && !seen) {
    run.step();
    take_snapshot(run.scheduler, &snapshot);
    EXPECT_EQ(inconsistency_of(snapshot), "");
    for (const SequenceSnapshot& s : snapshot.sequences) {
      if (!s.is_swapped) continue;
      seen = true;
      EXPECT_EQ(s.state, SequenceState::kWaiting);
      EXPECT_EQ(s.slot, -1);
      EXPECT_EQ(s.num_blocks, 0);
      EXPECT_EQ(static_cast<int>(snapshot.host_table_of(s).size()), snapshot.num_host_used);
    }
  }
  EXPECT_TRUE(seen);
}

Request request(int first_token, int num_prompt, int max_tokens, int n = 1) {
  Request r;
  for (int i = 0; i < num_prompt; ++i) r.prompt.push_back((first_token + i) % 100);
  r.sampling.max_tokens = max_tokens;
  r.sampling.ignore_eos = true;
  r.sampling.seed = fake_salt_seed("");
  r.sampling.n = n;
  return r;
}

TEST(SnapshotReader, ComesBetweenStepsAndStaysAsItIs) {
  auto runner = std::make_unique<GatedRunner>(runner_info(64, 4));
  const auto gate = runner->gate;
  auto engine = make_engine(std::move(runner));
  SnapshotReader reader = engine->snapshots();
  const EngineSnapshot* first = reader.read().value();  // an idle engine answers
  EXPECT_EQ(first->step, 0);
  EXPECT_EQ(first->num_used, 0);
  auto stream = engine->submit(request(1, 8, 50));
  ASSERT_TRUE(stream.ok());
  // In a step: the answer comes when that has ended, and until then the last one can be read.
  while (engine->stats().num_waiting == 0) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(reader.poll().value(), nullptr);
  EXPECT_EQ(first->num_used, 0);
  gate->update([](int& open) { open = 1; });
  const EngineSnapshot* second = reader.read().value();
  EXPECT_EQ(second->step, 1);
  EXPECT_EQ(second->num_used, 2);
  ASSERT_EQ(second->sequences.size(), 1U);
  EXPECT_EQ(second->sequences[0].num_tokens, 9);
  EXPECT_EQ(second->num_tokens_held, 8);
  gate->update([](int& open) { open = 1000; });
}

TEST(SnapshotReader, OutlivesTheEngineAndSaysSo) {
  auto engine = make_engine(std::make_unique<FakeModelRunner>(runner_info(64, 4)));
  SnapshotReader reader = engine->snapshots();
  ASSERT_TRUE(reader.read().ok());
  KvEventSubscription events = engine->subscribe();
  engine.reset();
  EXPECT_EQ(reader.read().status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(events.next(seconds(10)).empty());  // at once
  EXPECT_TRUE(events.engine_has_stopped());
}

// Submits requests with forks until `done`, in a pool that preempts and evicts.
void keep_busy(Engine& engine, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    std::vector<TokenStream> streams;
    for (int i = 0; i < 4; ++i) {
      auto stream = engine.submit(request(round * 7 + i, 5 + 3 * i, 20, 1 + i % 3));
      ASSERT_TRUE(stream.ok()) << stream.status().message();
      streams.push_back(std::move(*stream));
    }
    for (TokenStream& stream : streams) {
      while (stream.next()) {
      }
    }
  }
}

TEST(SnapshotReader, EverySnapshotOfABusyEngineIsConsistent) {
  EngineConfig config = engine_config();
  config.preemption_mode = "swap";
  config.swap_space_bytes = 1;  // the runner's info counts
  auto runner = std::make_unique<FakeModelRunner>(runner_info(24, 4, 24));
  runner->set_num_host_blocks(24);
  auto engine = make_engine(std::move(runner), config);
  std::thread writer([&] { keep_busy(*engine, 60); });
  SnapshotReader reader = engine->snapshots();
  int used = 0, waiting = 0;
  for (int i = 0; i < 500; ++i) {
    const EngineSnapshot& snapshot = *reader.read().value();
    ASSERT_EQ(inconsistency_of(snapshot), "");
    used += snapshot.num_used > 0;
    waiting += snapshot.num_waiting > 0;
  }
  writer.join();
  EXPECT_GT(used, 0);
  EXPECT_GT(waiting, 0);
}

// What the events say is in the pool.
struct Replay {
  std::map<BlockId, uint64_t> cached;  // with content: block -> hash
  std::map<KvEventKind, int> counts;
  int64_t step = 0;

  void apply(const KvEvent& event) {
    ++counts[event.kind];
    EXPECT_GE(event.step, step);
    step = event.step;
    if (event.kind == KvEventKind::kStored) {
      EXPECT_TRUE(cached.emplace(event.block, event.hash).second) << event.block;
    } else if (event.kind == KvEventKind::kEvicted) {
      const auto found = cached.find(event.block);
      ASSERT_NE(found, cached.end()) << event.block;
      EXPECT_EQ(found->second, event.hash);
      cached.erase(found);
    } else if (event.kind == KvEventKind::kRemoved) {
      EXPECT_FALSE(cached.contains(event.block));
    } else if (event.kind == KvEventKind::kCopied) {
      EXPECT_NE(event.block, event.other);
    } else if (event.kind == KvEventKind::kForked) {
      EXPECT_GT(event.count, 0);
    }
  }
};

TEST(KvEvents, TellWhatThePoolHolds) {
  EngineConfig config = engine_config();
  config.preemption_mode = "swap";
  config.swap_space_bytes = 1;
  auto runner = std::make_unique<FakeModelRunner>(runner_info(24, 4, 24));
  runner->set_num_host_blocks(24);
  auto engine = make_engine(std::move(runner), config);
  KvEventSubscription events = engine->subscribe();
  SnapshotReader reader = engine->snapshots();
  ASSERT_TRUE(reader.read().ok());  // the subscription has begun
  keep_busy(*engine, 30);
  const EngineSnapshot& snapshot = *reader.read().value();
  Replay replay;
  int64_t num_events = 0;
  for (std::span<const KvEvent> some; !(some = events.next(milliseconds(0))).empty();) {
    for (const KvEvent& event : some) replay.apply(event);
    num_events += static_cast<int64_t>(some.size());
  }
  EXPECT_EQ(num_events, snapshot.num_kv_events);
  EXPECT_EQ(events.num_dropped(), 0);
  std::map<BlockId, uint64_t> content;
  for (BlockId id = 0; id < 24; ++id) {
    if (snapshot.blocks[id].has_content()) content[id] = snapshot.blocks[id].hash;
  }
  EXPECT_EQ(replay.cached, content);
  const EngineStats stats = engine->stats();
  EXPECT_EQ(replay.counts[KvEventKind::kEvicted], stats.num_evictions);
  EXPECT_EQ(replay.counts[KvEventKind::kSwappedOut], stats.num_swapped_out);
  EXPECT_EQ(replay.counts[KvEventKind::kSwappedIn], stats.num_swapped_in);
  for (const auto kind : {KvEventKind::kStored,
                          KvEventKind::kRemoved,
                          KvEventKind::kEvicted,
                          KvEventKind::kForked,
                          KvEventKind::kCopied,
                          KvEventKind::kSwappedOut,
                          KvEventKind::kSwappedIn}) {
    EXPECT_GT(replay.counts[kind], 0) << kv_event_name(kind);
  }
}

TEST(KvEvents, ASlowReaderLosesTheNewestAndKnowsHowMany) {
  auto engine = make_engine(std::make_unique<FakeModelRunner>(runner_info(24, 4)));
  KvEventSubscription slow = engine->subscribe(5), quick = engine->subscribe();
  SnapshotReader reader = engine->snapshots();
  ASSERT_TRUE(reader.read().ok());
  keep_busy(*engine, 5);
  const int64_t published = reader.read().value()->num_kv_events;
  const auto all = quick.next(seconds(10));
  const auto some = slow.next(seconds(10));
  ASSERT_EQ(static_cast<int64_t>(all.size()), published);
  ASSERT_EQ(some.size(), 5U);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  EXPECT_EQ(slow.num_dropped(), published - 5);
  EXPECT_EQ(quick.num_dropped(), 0);
}

TEST(KvEvents, NothingIsRecordedForNobody) {
  Stepper run(16);
  KvEventHub hub;
  const auto queue = std::make_shared<KvEventQueue>(100);
  hub.add(queue, &run.scheduler);
  ASSERT_TRUE(run.scheduler.add(spec(10, 3)).ok());
  run.step();
  hub.publish(1);
  const int64_t published = hub.num_published();
  EXPECT_GT(published, 0);
  hub.remove(queue.get(), &run.scheduler);
  run.step();
  run.step();
  hub.publish(2);
  EXPECT_EQ(hub.num_published(), published);
}

}  // namespace
}  // namespace quire
