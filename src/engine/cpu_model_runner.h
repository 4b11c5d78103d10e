// The ModelRunner of the CPU: Model::forward over the op table, then the sampler, step by step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "engine/engine_config.h"
#include "engine/model_runner.h"
#include "engine/sampler.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/workspace.h"

namespace quire {

class CpuModelRunner final : public ModelRunner {
 public:
  // Chooses the op table, sizes and allocates the KV pool and every buffer of a step. `config` must be valid.
  static Result<std::unique_ptr<CpuModelRunner>> create(const EngineConfig& config,
                                                        std::unique_ptr<Model> model);

  const RunnerInfo& info() const override { return info_; }
  // Computes the whole step: max_in_flight is 1.
  Status launch(const ScheduledBatch& batch) override;
  Status collect(StepResult* result) override;

  const KvPoolPlan& kv_plan() const { return kv_plan_; }
  const Model& model() const { return *model_; }
  const char* isa() const { return ops_->name; }
  int num_threads() const { return pool_.num_threads(); }
  ActivationType activations() const { return activations_; }

 private:
  CpuModelRunner(const EngineConfig& config, std::unique_ptr<Model> model, const OpTable& ops);
  Status allocate(const EngineConfig& config);
  void fill_inputs(const ScheduledBatch& batch);
  void sample(const ScheduledBatch& batch);
  void sample_sequence(const ScheduledBatch& batch, int index, SamplerScratch& scratch);

  std::unique_ptr<Model> model_;
  const OpTable* ops_;
  ActivationType activations_;
  ThreadPool pool_;
  RunnerInfo info_;
  KvPoolPlan kv_plan_;
  KvCache kv_;
  Workspace workspace_ = Workspace::measuring();
  HugeBuffer scratch_, logits_;
  Sampler sampler_;
  std::vector<SamplerScratch> sampler_scratch_;  // one a thread

  // Inputs of Model::forward; they keep their memory from step to step.
  std::vector<int32_t> positions_, query_start_, kv_len_, block_tables_;
  std::vector<int64_t> slots_;
  std::vector<int32_t> sampled_;  // of each sequence of the batch; kInvalidToken where none was asked for
  StepResult result_;
};

}  // namespace quire
