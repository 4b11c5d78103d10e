// Computes steps on the CPU: launch() does the whole step, collect() hands out its result.
#pragma once

#include <memory>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "engine/engine_config.h"
#include "engine/memory_plan.h"
#include "engine/model_runner.h"
#include "engine/sampler.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/workspace.h"

namespace quire {

class CpuModelRunner : public ModelRunner {
 public:
  // Allocates everything a step needs, the KV pool among it, as `plan` says. `model` may be shared
  // by several runners.
  static Result<std::unique_ptr<CpuModelRunner>> create(std::shared_ptr<const Model> model,
                                                        const EngineConfig& config,
                                                        const MemoryPlan& plan);
  // With a plan for the memory that is free beside the model.
  static Result<std::unique_ptr<CpuModelRunner>> create(std::shared_ptr<const Model> model,
                                                        const EngineConfig& config);

  const RunnerInfo& info() const override { return info_; }
  Status launch(const ScheduledBatch& batch) override;
  Status collect(StepResult* result) override;

  const MemoryPlan& memory() const { return memory_; }
  const KvPoolPlan& kv_pool() const { return memory_.kv; }
  const Model& model() const { return *model_; }
  const OpTable& ops() const { return *ops_; }
  int num_threads() const { return threads_->num_threads(); }
  int64_t num_kv_overflows() { return *kv_.overflows(); }

 private:
  CpuModelRunner(std::shared_ptr<const Model> model, Workspace workspace, KvCache kv);

  void measure_swapping();
  void build_inputs(const ScheduledBatch& batch);
  void forward(const ScheduledBatch& batch);
  void sample_all(const ScheduledBatch& batch);
  void sample_one(const ScheduledBatch& batch, int index, SamplerScratch* scratch);

  std::shared_ptr<const Model> model_;
  RunnerInfo info_;
  MemoryPlan memory_;
  const OpTable* ops_ = nullptr;
  ActivationType activations_ = ActivationType::kInt16;
  FusionSet fusions_ = FusionSet::all();
  std::unique_ptr<ThreadPool> threads_;
  HugeBuffer scratch_;  // [threads][kScratchBytesPerThread]
  HugeBuffer logits_;   // [R, V] f32
  Workspace workspace_;
  KvCache kv_;
  KvCache host_kv_;  // what is swapped out; empty without swap space
  std::unique_ptr<Sampler> sampler_;
  std::vector<SamplerScratch> sampler_scratch_;  // of each thread

  // The batch as the model sees it (ForwardBatch).
  std::vector<int32_t> tokens_, positions_, query_start_, kv_len_, block_tables_;
  std::vector<int64_t> slots_;
  int block_table_stride_ = 0;
  std::vector<int32_t> last_token_;  // of each slot
  std::vector<int32_t> sampled_;     // of each sequence of the batch
  StepResult result_;
};

}  // namespace quire
