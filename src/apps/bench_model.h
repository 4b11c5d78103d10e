// Prefill and decode of a model, step by step on the runner itself: no scheduler, no strings.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/cpu_model_runner.h"
#include "model/loader.h"

namespace quire {

struct BenchPlan {
  int prompt_tokens = 512, generate_tokens = 64, repeat = 5;
  std::vector<int> batches{1, 8, 32}, depths{0, 4096};
};

// One case; tokens_per_second has one entry a repetition.
struct BenchResult {
  std::string kind;  // "prefill" or "decode"
  int batch = 1, depth = 0, tokens = 0;
  std::vector<double> tokens_per_second;
  double bytes_per_token = 0,
         operations_per_token = 0;  // weights and KV read; multiply and add are two
};

class ModelBench {
 public:
  static Result<std::unique_ptr<ModelBench>> create(const LoadedModel& loaded,
                                                    std::shared_ptr<const Model> model,
                                                    EngineConfig config,
                                                    const BenchPlan& plan);

  // One repetition; appends its speed to `result`.
  Status run_prefill(BenchResult& result);
  Status run_decode(BenchResult& result);
  const CpuModelRunner& runner() const { return *runner_; }

 private:
  ModelBench() = default;
  // A step that computes `num_tokens` tokens at `start` of each of the first `batch` sequences.
  Status step(int batch, int start, int num_tokens, bool fresh);
  void count_costs(BenchResult& result, int64_t steps) const;

  const LoadedModel* loaded_ = nullptr;
  BenchPlan plan_;
  int max_step_tokens_ = 0, blocks_per_sequence_ = 0;
  std::unique_ptr<CpuModelRunner> runner_;
  ScheduledBatch batch_;
  StepResult result_;
  uint32_t random_ = 1;
};

}  // namespace quire
