#include "engine/engine_config.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(EngineConfig, TheDefaultsAreValid) { EXPECT_TRUE(EngineConfig().validate().ok()); }

TEST(EngineConfig, NamesFlagValueAndLimit) {
  const auto message = [](auto change) {
    EngineConfig config;
    change(config);
    return config.validate().message();
  };
  EXPECT_EQ(message([](EngineConfig& c) { c.block_size = 24; }),
            "--block-size must be a power of two in [1, 256], got 24; 16 is the default");
  EXPECT_EQ(message([](EngineConfig& c) { c.max_num_seqs = 0; }),
            "--max-num-seqs must be at least 1, got 0");
  EXPECT_NE(message([](EngineConfig& c) {
              c.max_num_batched_tokens = 8;
            }).find("--max-num-batched-tokens is 8, less than one token for each of"),
            std::string::npos);
  EXPECT_EQ(message([](EngineConfig& c) { c.activations = "int4"; }),
            "--activations must be one of int16, int8, f32; got 'int4'");
  EXPECT_NE(message([](EngineConfig& c) { c.kv_cache_dtype = "fp8"; }).find("got 'fp8'"),
            std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) {
              c.kv_cache_memory_share = 1.5;
            }).find("--kv-cache-memory-share must be in (0, 1], got 1.5"),
            std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) {
              c.gpu_memory_utilization = 92;
            }).find("--gpu-memory-utilization must be in [0, 1], got 92"),
            std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) {
              c.gpu_memory_utilization = 0.5;
              c.kv_cache_memory_bytes = 1024;
            }).find("--kv-cache-memory-bytes 1024 both size the KV pool: leave out one"),
            std::string::npos);
  EXPECT_EQ(message([](EngineConfig& c) { c.num_threads = -1; }),
            "--threads must be at least 0, got -1 (0 = every core)");
  EXPECT_NE(message([](EngineConfig& c) {
              c.num_threads = 100'000;
            }).find("--threads must be at most 1024, got 100000"),
            std::string::npos);
}

constexpr KvPoolInputs kInputs{.num_layers = 10,
                               .block_bytes_per_layer = 1000,
                               .free_memory_bytes = 10'000'000,
                               .model_max_len = 2048};

TEST(KvPoolPlan, UsesTheWholeOfAnExactSize) {
  EngineConfig config;
  config.kv_cache_memory_bytes = 1'005'000;
  const KvPoolPlan plan = *plan_kv_pool(config, kInputs);
  EXPECT_EQ(plan.block_bytes, 10'000);
  EXPECT_EQ(plan.num_blocks, 100);
  EXPECT_EQ(plan.num_tokens, 1600);
  EXPECT_EQ(plan.bytes_per_token, 625);
  EXPECT_EQ(plan.max_model_len, 1600);  // less than the model's: all that fits
  EXPECT_NE(plan.to_string().find("100 blocks x 10000 bytes"), std::string::npos);
}

TEST(KvPoolPlan, TakesAShareOfFreeMemoryButNotMoreThanCanBeUsed) {
  EngineConfig config;
  config.kv_cache_memory_share = 0.5;
  config.max_num_seqs = 1;
  config.max_model_len = 1000;  // 63 blocks
  EXPECT_EQ(plan_kv_pool(config, kInputs)->num_blocks, 63);
  config.max_num_seqs = 64;
  EXPECT_EQ(plan_kv_pool(config, kInputs)->num_blocks, 500);
}

TEST(KvPoolPlan, RefusesMoreThanTheModelsContext) {
  EngineConfig config;
  config.max_model_len = 2049;
  EXPECT_EQ(plan_kv_pool(config, kInputs).status().message(),
            "--max-model-len is 2049, but the model's context is 2048 tokens: lower it");
}

TEST(KvPoolPlan, RefusesALengthThatDoesNotFitWithTheNumbers) {
  EngineConfig config;
  config.kv_cache_memory_bytes = 500'000;
  config.max_model_len = 1000;
  const Status status = plan_kv_pool(config, kInputs).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "--kv-cache-memory-bytes 500000 holds 50 KV blocks of 10000 bytes, but one sequence "
            "needs 63 (630000 bytes): raise --kv-cache-memory-bytes or lower --max-model-len");
  config.kv_cache_memory_bytes = 10;
  config.max_model_len = 0;
  EXPECT_FALSE(plan_kv_pool(config, kInputs).ok());
}

TEST(EngineConfig, SwappingAndItsSpaceComeTogether) {
  EngineConfig config;
  config.preemption_mode = "swap";
  EXPECT_NE(config.validate().message().find("needs a host pool"), std::string::npos);
  config.swap_space_bytes = 1 << 20;
  EXPECT_TRUE(config.validate().ok());
  config.preemption_mode = "recompute";
  EXPECT_NE(config.validate().message().find("--swap-space is 1048576"), std::string::npos);
  config.preemption_mode = "drop";
  EXPECT_NE(config.validate().message().find("recompute, swap, auto; got 'drop'"),
            std::string::npos);
}

}  // namespace
}  // namespace quire
