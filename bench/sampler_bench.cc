// What one row of logits costs the sampler, by vocabulary and parameters. Limit: 1 ms at 128k.
#include <benchmark/benchmark.h>

#include "base/philox.h"
#include "engine/sampler.h"

namespace quire {
namespace {

void run(benchmark::State& state, SamplingParams sampling) {
  const int vocab_size = static_cast<int>(state.range(0));
  std::vector<float> logits(vocab_size);
  for (int i = 0; i < vocab_size; ++i) {
    double sum = 0;
    for (uint32_t j = 0; j < 4; ++j) sum += philox_uniform(1, i, j);
    logits[i] = static_cast<float>((sum - 2) * 5);
  }
  sampling.seed = 1;
  Sampler sampler(1, vocab_size);
  sampler.add(
      {.slot = 0, .sample_index = 0, .sampling = sampling, .tokens = {1, 2, 3}, .num_prompt = 3});
  SamplerScratch scratch;
  LogprobList logprobs;
  int position = 3;
  for (auto _ : state) {
    benchmark::DoNotOptimize(sampler.sample(0, position++, logits, &scratch, &logprobs));
  }
}

void BM_Greedy(benchmark::State& state) { run(state, {.temperature = 0}); }
void BM_Temperature(benchmark::State& state) { run(state, {.temperature = 0.8}); }
void BM_TopK(benchmark::State& state) { run(state, {.temperature = 0.8, .top_k = 40}); }
void BM_TopP(benchmark::State& state) { run(state, {.temperature = 0.8, .top_p = 0.95}); }
void BM_TopPFlat(benchmark::State& state) { run(state, {.temperature = 100, .top_p = 0.95}); }
void BM_MinP(benchmark::State& state) { run(state, {.temperature = 0.8, .min_p = 0.05}); }
void BM_GreedyLogprobs20(benchmark::State& state) {
  run(state, {.temperature = 0, .logprobs = 20});
}
void BM_Penalties(benchmark::State& state) {
  run(state, {.temperature = 0, .repetition_penalty = 1.1});
}

#define SAMPLER_BENCH(name) BENCHMARK(name)->Arg(49152)->Arg(128256)->Unit(benchmark::kMicrosecond)
SAMPLER_BENCH(BM_Greedy);
SAMPLER_BENCH(BM_Temperature);
SAMPLER_BENCH(BM_TopK);
SAMPLER_BENCH(BM_TopP);
SAMPLER_BENCH(BM_TopPFlat);
SAMPLER_BENCH(BM_MinP);
SAMPLER_BENCH(BM_GreedyLogprobs20);
SAMPLER_BENCH(BM_Penalties);

}  // namespace
}  // namespace quire

BENCHMARK_MAIN();
