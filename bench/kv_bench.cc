// What the bookkeeping of KV blocks and of scheduling costs, each beside its limit: 100 ns a block
// operation with 10^5 blocks, 300 ns with 10^6, 200 us for schedule() with 1,000 running sequences,
// 50 us for a snapshot of 10^4 blocks, no allocation in any.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>

#include "allocation/count_allocations.h"
#include "engine/observe.h"
#include "engine/scheduler.h"
#include "kv/block_hash.h"

namespace quire {
namespace {

constexpr int kBlockSize = 16;

using Clock = std::chrono::steady_clock;

double block_limit_ns(int num_blocks) { return num_blocks <= 100'000 ? 100 : 300; }

// The time of `count` operations an iteration, and the allocations of all.
class Measured {
 public:
  Measured(benchmark::State& state, int64_t count) : state_(state), count_(count) {}
  template <class F>
  void time(F&& operations) {
    const int64_t before = num_allocations;
    const auto start = Clock::now();
    operations();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    allocations_ += num_allocations - before;
    seconds_.push_back(seconds);
    state_.SetIterationTime(seconds);
  }
  // The median iteration in units of 1 / per_second seconds, beside its limit.
  void report(const char* name, double per_second, double limit) {
    std::ranges::sort(seconds_);
    const double median = seconds_[seconds_.size() / 2] * per_second / static_cast<double>(count_);
    state_.counters[name] = median;
    state_.counters["limit"] = limit;
    state_.counters["within"] = median <= limit;
    state_.counters["allocations"] = static_cast<double>(allocations_);
  }

 private:
  benchmark::State& state_;
  int64_t count_, allocations_ = 0;
  std::vector<double> seconds_;
};

// All blocks are given back and taken in an order that has nothing to do with their place in
// memory, as after hours of work.
struct ShuffledPool {
  explicit ShuffledPool(int num_blocks) : pool(num_blocks, kBlockSize), blocks(num_blocks) {
    std::iota(blocks.begin(), blocks.end(), 0);
    std::ranges::shuffle(blocks, random);
    allocate();
    release();
  }
  void allocate() {
    for (BlockId& block : blocks) block = pool.allocate();
  }
  void release() {
    for (const BlockId block : blocks) pool.release(block);
  }
  std::mt19937 random{1};
  BlockPool pool;
  std::vector<BlockId> blocks;
};

// All blocks in turn, kChunk at a time: the median chunk is one that nothing else interrupted.
constexpr int kChunk = 1024;

void BM_Allocate(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0));
  ShuffledPool run(num_blocks);
  Measured measured(state, kChunk);
  int next = 0;
  for (auto _ : state) {
    if (next + kChunk > num_blocks) {
      while (next < num_blocks) run.blocks[next++] = run.pool.allocate();
      std::ranges::shuffle(run.blocks, run.random);
      run.release();
      next = 0;
    }
    measured.time([&] {
      for (int i = 0; i < kChunk; ++i) run.blocks[next++] = run.pool.allocate();
    });
  }
  measured.report("ns_per_block", 1e9, block_limit_ns(num_blocks));
}
BENCHMARK(BM_Allocate)->Arg(100'000)->Arg(1'000'000)->UseManualTime();

void BM_Free(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0));
  ShuffledPool run(num_blocks);
  Measured measured(state, kChunk);
  int next = num_blocks;
  for (auto _ : state) {
    if (next + kChunk > num_blocks) {
      while (next < num_blocks && run.pool.num_used() > 0) run.pool.release(run.blocks[next++]);
      run.allocate();
      std::ranges::shuffle(run.blocks, run.random);
      next = 0;
    }
    measured.time([&] {
      for (int i = 0; i < kChunk; ++i) run.pool.release(run.blocks[next++]);
    });
  }
  measured.report("ns_per_block", 1e9, block_limit_ns(num_blocks));
}
BENCHMARK(BM_Free)->Arg(100'000)->Arg(1'000'000)->UseManualTime();

// Tables that grow to 64 blocks in turn, a block at a time.
void BM_Append(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0)), num_tables = num_blocks / 64;
  ShuffledPool run(num_blocks);
  std::vector<BlockTable> tables(num_tables);
  for (BlockTable& table : tables) table.set_capacity(64);
  const int chunk = std::min(num_tables, kChunk);
  Measured measured(state, chunk);
  int length = 1, next = 0;
  for (auto _ : state) {
    if (next + chunk > num_tables) {
      while (next < num_tables) tables[next++].reserve(run.pool, length * kBlockSize);
      ++length, next = 0;
    }
    if (length > 64) {
      std::ranges::shuffle(tables, run.random);
      for (BlockTable& table : tables) table.release(run.pool);
      length = 1;
    }
    measured.time([&] {
      for (int i = 0; i < chunk; ++i) tables[next++].reserve(run.pool, length * kBlockSize);
    });
  }
  measured.report("ns_per_block", 1e9, block_limit_ns(num_blocks));
}
BENCHMARK(BM_Append)->Arg(100'000)->Arg(1'000'000)->UseManualTime();

// Tables of 64 blocks are forked, sixteen at a time.
void BM_Fork(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0)), num_tables = num_blocks / 64;
  ShuffledPool run(num_blocks);
  std::vector<BlockTable> tables(num_tables), children(16);
  for (BlockTable& table : tables) table.reserve(run.pool, 64 * kBlockSize);
  for (BlockTable& child : children) child.set_capacity(64);
  Measured measured(state, 16 * 64);
  for (auto _ : state) {
    for (int i = 0; i < 16; ++i) {
      std::swap(tables[i], tables[run.random() % static_cast<unsigned>(num_tables)]);
    }
    measured.time([&] {
      for (int i = 0; i < 16; ++i) children[i].fork(run.pool, tables[i]);
    });
    for (BlockTable& child : children) child.release(run.pool);
  }
  measured.report("ns_per_block", 1e9, block_limit_ns(num_blocks));
}
BENCHMARK(BM_Fork)->Arg(100'000)->Arg(1'000'000)->UseManualTime();

// Every block is filled, cached, released, and evicted by a later one; its tokens are new.
void BM_CacheAndEvict(benchmark::State& state) {
  BlockPool pool(static_cast<int>(state.range(0)), kBlockSize);
  const BlockId root = pool.acquire_root("");
  std::vector<int32_t> tokens(kBlockSize);
  uint64_t random = 1;
  const int64_t before = num_allocations;
  for (auto _ : state) {
    random = mix64(random);
    tokens[0] = static_cast<int32_t>(random);
    tokens[1] = static_cast<int32_t>(random >> 32);
    const BlockId block = pool.allocate();
    pool.release(pool.cache(block, {block_hash(1, tokens), root, tokens}));
  }
  state.counters["allocations"] = static_cast<double>(num_allocations - before);
}
BENCHMARK(BM_CacheAndEvict)->Arg(100'000)->Arg(1'000'000);

// Steps of `running` decoding sequences, with `num_prompt` tokens each.
struct DecodeSteps {
  explicit DecodeSteps(int running,
                       int num_prompt = 1000,
                       int max_tokens = 3000,
                       int num_blocks = 100'000)
      : scheduler({.max_num_seqs = running,
                   .max_num_batched_tokens = 1 << 20,
                   .max_model_len = num_prompt + max_tokens,
                   .max_logit_rows = running + 1},
                  num_blocks,
                  kBlockSize) {
    for (int i = 0; i < running; ++i) {
      SequenceSpec spec;
      spec.prompt.resize(num_prompt);
      for (int j = 0; j < num_prompt; ++j) spec.prompt[j] = i * 7 + j;
      spec.sampling.max_tokens = max_tokens;
      if (!scheduler.add(std::move(spec)).ok()) std::abort();
    }
    step();
    step();
  }
  void commit() {
    const int n = static_cast<int>(batch.sequences.size());
    result.clear(n);
    for (int i = 0; i < n; ++i) {
      result.tokens.push_back(5);
      result.token_start[i + 1] = i + 1;
    }
    scheduler.commit(batch, result, &committed);
  }
  void step() {
    scheduler.schedule(&batch);
    commit();
  }
  Scheduler scheduler;
  ScheduledBatch batch;
  StepResult result;
  std::vector<CommittedSequence> committed;
};

constexpr int kStepsOfARun = 400;  // before blocks or tokens end

template <class F>
void measure_steps(benchmark::State& state, double limit_us, F&& measured_part) {
  const int running = static_cast<int>(state.range(0));
  auto steps = std::make_unique<DecodeSteps>(running);
  int left = kStepsOfARun;
  Measured measured(state, 1);
  for (auto _ : state) {
    if (--left == 0) {
      steps = std::make_unique<DecodeSteps>(running);
      left = kStepsOfARun;
    }
    measured_part(measured, *steps);
  }
  measured.report("us", 1e6, limit_us);
}

void BM_Schedule(benchmark::State& state) {
  measure_steps(state, 200, [](Measured& measured, DecodeSteps& steps) {
    measured.time([&] { steps.scheduler.schedule(&steps.batch); });
    steps.commit();
  });
}
BENCHMARK(BM_Schedule)->Arg(32)->Arg(1000)->Unit(benchmark::kMicrosecond)->UseManualTime();

void BM_Commit(benchmark::State& state) {
  measure_steps(state, 200, [](Measured& measured, DecodeSteps& steps) {
    steps.scheduler.schedule(&steps.batch);
    measured.time([&] { steps.commit(); });
  });
}
BENCHMARK(BM_Commit)->Arg(1000)->Unit(benchmark::kMicrosecond)->UseManualTime();

// Of a pool of 10,000 blocks that `running` sequences fill, after a step that has touched it.
void BM_Snapshot(benchmark::State& state) {
  const int running = static_cast<int>(state.range(0)), num_blocks = 10'000;
  const int length = num_blocks / running * kBlockSize;
  DecodeSteps steps(running, length - 100, 100, num_blocks);
  EngineSnapshot snapshot;
  snapshot.tables.reserve(2 * num_blocks);
  take_snapshot(steps.scheduler, &snapshot);
  Measured measured(state, 1);
  int left = 90;
  for (auto _ : state) {
    if (--left > 0) steps.step();
    measured.time([&] { take_snapshot(steps.scheduler, &snapshot); });
    benchmark::DoNotOptimize(snapshot.num_tokens_held);
  }
  state.counters["used_blocks"] = snapshot.num_used;
  measured.report("us", 1e6, 50);
}
BENCHMARK(BM_Snapshot)->Arg(16)->Arg(64)->Unit(benchmark::kMicrosecond)->UseManualTime();

}  // namespace
}  // namespace quire

BENCHMARK_MAIN();
