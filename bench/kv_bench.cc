// What the bookkeeping of KV blocks and of scheduling costs. Limits: 100 ns a block operation with
// 10^5 blocks, 200 us for schedule() with 1,000 running sequences, no allocation in either.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>

#include "engine/scheduler.h"
#include "kv/block_hash.h"

namespace {
std::atomic<int64_t> num_allocations{0};
}  // namespace

// Counts every allocation of the program.
void* operator new(size_t size) {
  num_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace quire {
namespace {

constexpr int kBlockSize = 16;

// Sequences of 64 blocks each, filled and released in turn: allocate + release, in random order of
// blocks after the first rounds.
void BM_ReserveAndRelease(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0)), num_tables = num_blocks / 64;
  BlockPool pool(num_blocks, kBlockSize);
  std::vector<BlockTable> tables(num_tables);
  for (BlockTable& table : tables) {
    table.set_capacity(64);
    table.reserve(pool, 64 * kBlockSize);
  }
  uint64_t random = 1;
  const int64_t before = num_allocations;
  for (auto _ : state) {
    random = mix64(random);
    BlockTable& table = tables[random % num_tables];
    table.release(pool);
    for (int n = 1; n <= 64; ++n) table.reserve(pool, n * kBlockSize);
  }
  state.SetItemsProcessed(state.iterations() * 128);
  state.counters["ns_per_op"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 128e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["allocations"] = static_cast<double>(num_allocations - before);
}
BENCHMARK(BM_ReserveAndRelease)->Arg(100'000)->Arg(1'000'000);

void BM_ForkAndRelease(benchmark::State& state) {
  const int num_blocks = static_cast<int>(state.range(0));
  BlockPool pool(num_blocks, kBlockSize);
  std::vector<BlockTable> tables(num_blocks / 64);
  for (BlockTable& table : tables) table.reserve(pool, 64 * kBlockSize);
  BlockTable child;
  child.set_capacity(64);
  uint64_t random = 1;
  for (auto _ : state) {
    random = mix64(random);
    child.fork(pool, tables[random % tables.size()]);
    child.release(pool);
  }
  state.counters["ns_per_block"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * 64e-9,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_ForkAndRelease)->Arg(100'000)->Arg(1'000'000);

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

// One step of `running` decoding sequences, with 1,000 tokens each.
struct DecodeSteps {
  explicit DecodeSteps(int running)
      : scheduler({.max_num_seqs = running,
                   .max_num_batched_tokens = 1 << 20,
                   .max_model_len = 4096,
                   .max_logit_rows = running + 1},
                  100'000,
                  kBlockSize) {
    for (int i = 0; i < running; ++i) {
      SequenceSpec spec;
      spec.prompt.resize(1000);
      for (int j = 0; j < 1000; ++j) spec.prompt[j] = i * 7 + j;
      spec.sampling.max_tokens = 3000;
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

void BM_Schedule(benchmark::State& state) {
  const int running = static_cast<int>(state.range(0));
  auto steps = std::make_unique<DecodeSteps>(running);
  int left = 400;  // before blocks or tokens end
  int64_t allocations = 0;
  for (auto _ : state) {
    if (--left == 0) {
      state.PauseTiming();
      steps = std::make_unique<DecodeSteps>(running);
      left = 400;
      state.ResumeTiming();
    }
    const int64_t before = num_allocations;
    steps->scheduler.schedule(&steps->batch);
    allocations += num_allocations - before;
    state.PauseTiming();
    steps->commit();
    state.ResumeTiming();
  }
  state.counters["allocations"] = static_cast<double>(allocations);
}
BENCHMARK(BM_Schedule)->Arg(32)->Arg(1000)->Unit(benchmark::kMicrosecond);

void BM_Commit(benchmark::State& state) {
  const int running = static_cast<int>(state.range(0));
  auto steps = std::make_unique<DecodeSteps>(running);
  int left = 400;
  for (auto _ : state) {
    state.PauseTiming();
    if (--left == 0) {
      steps = std::make_unique<DecodeSteps>(running);
      left = 400;
    }
    steps->scheduler.schedule(&steps->batch);
    state.ResumeTiming();
    steps->commit();
  }
}
BENCHMARK(BM_Commit)->Arg(1000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace quire

BENCHMARK_MAIN();
