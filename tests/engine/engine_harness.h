// An engine over a fake model, for tests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "base/monitor.h"
#include "engine/engine.h"
#include "simulation/fake_model_runner.h"

namespace quire {

// Waits at the gate before each step until the test opens it.
class GatedRunner : public FakeModelRunner {
 public:
  using FakeModelRunner::FakeModelRunner;
  Status launch(const ScheduledBatch& batch) override {
    gate->wait([](int open) { return open > 0; }, [](int& open) { return --open; });
    return FakeModelRunner::launch(batch);
  }
  std::shared_ptr<Monitor<int>> gate = std::make_shared<Monitor<int>>(0);
};

inline EngineConfig engine_config() {
  EngineConfig config;
  config.max_num_seqs = 8;
  config.max_num_batched_tokens = 16;
  return config;
}

inline std::unique_ptr<Engine> make_engine(std::unique_ptr<FakeModelRunner> runner,
                                           const EngineConfig& config = engine_config()) {
  auto engine = Engine::create(config, std::move(runner));
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

}  // namespace quire
