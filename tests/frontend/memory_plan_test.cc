#include <gtest/gtest.h>

#include "engine/cpu_model_runner.h"
#include "frontend/llm.h"

namespace quire {
namespace {

const std::filesystem::path kTiny = std::filesystem::path(QUIRE_TESTDATA) / "golden" / "tiny";

LlmConfig tiny_config() {
  LlmConfig config;
  config.model = (kTiny / "llama_gqa").string();
  config.engine.kv_cache_memory_bytes = 1 << 20;
  config.engine.num_threads = 2;
  return config;
}

// The tiny model's plan on a machine with that much free memory.
MemoryPlan plan_with(const EngineConfig& config, int64_t total_bytes, int64_t available_bytes) {
  const OpenModel open = open_model(kTiny / "llama_gqa").value();
  return plan_memory(config,
                     open.outline(),
                     {.total_bytes = total_bytes,
                      .available_bytes = available_bytes,
                      .weights = open.weights(),
                      .is_loaded = false});
}
MemoryPlan plan_with(const EngineConfig& config, int64_t bytes) {
  return plan_with(config, bytes, bytes);
}

void expect_refused(const MemoryPlan& plan, const std::vector<std::string>& texts) {
  EXPECT_EQ(plan.refusal.code(), StatusCode::kResourceExhausted);
  for (const std::string& text : texts) {
    EXPECT_NE(plan.refusal.message().find(text), std::string::npos)
        << "wanted: " << text << "\ngot: " << plan.refusal.message();
  }
}

TEST(MemoryPlan, CountsEveryPartOfATinyModel) {
  EngineConfig config = tiny_config().engine;
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = 64;
  const MemoryPlan plan = plan_with(config, int64_t{1} << 30);
  EXPECT_TRUE(plan.refusal.ok()) << plan.refusal.message();
  // V 272, E 32, I 48, D 16, H 4, K 2, 2 layers, tied; rows in panels of 32.
  const int64_t embedding = 288 * 32 * 4;
  const int64_t attention = (64 * 32 + 64 * 32 + 32 * 64) * 4;  // q, k and v, o
  const int64_t mlp = (64 * 32 + 64 * 32 + 32 * 48) * 4;
  EXPECT_EQ(plan.weight_bytes, embedding + 2 * (attention + mlp) + 5 * 32 * 4);
  EXPECT_EQ(plan.rope_bytes, 256 * 16 * 4);
  EXPECT_EQ(plan.max_logit_rows, 4 + 64);
  EXPECT_EQ(plan.logits_bytes, 68 * 272 * 4);
  EXPECT_EQ(plan.kv.bytes_per_token, 2 * 2 * 2 * 16 * 2);  // layers, K and V, heads, D, f16
  EXPECT_EQ(plan.kv.pool_bytes, 1 << 20);
  EXPECT_EQ(plan.num_sequences(256), (1 << 20) / 256 / 256);
  EXPECT_EQ(plan.num_sequences(257), (1 << 20) / 256 / 272);
  EXPECT_EQ(plan.peak_bytes(),
            plan.weight_bytes + plan.rope_bytes + plan.activation_bytes + plan.logits_bytes +
                plan.scratch_bytes + plan.sampler_bytes + plan.bookkeeping_bytes +
                plan.rounding_bytes + (1 << 20));
  int64_t weights = 0;
  for (const PackedGroup& group : plan.weights) weights += group.bytes;
  EXPECT_EQ(weights, plan.weight_bytes);
}

TEST(MemoryPlan, IsWhatLoadingTakes) {
  for (const char* name : {"llama_gqa", "llama_bias", "qwen3", "opt_post", "llama_bf16"}) {
    LlmConfig config = tiny_config();
    config.model = (kTiny / name).string();
    const Result<LlmPlan> plan = plan_llm(config);
    ASSERT_TRUE(plan.ok()) << plan.status().message();
    const auto llm = Llm::load(config);
    ASSERT_TRUE(llm.ok()) << llm.status().message();
    const LoadReport& report = (*llm)->load_report();
    EXPECT_EQ(report.weight_bytes, plan->memory.weight_bytes) << name;
    EXPECT_EQ(report.kv_plan.num_blocks, plan->memory.kv.num_blocks) << name;
    EXPECT_EQ(report.memory.fixed_bytes(), plan->memory.fixed_bytes()) << name;
    EXPECT_EQ((*llm)->stats().num_blocks, plan->memory.kv.num_blocks) << name;
  }
}

TEST(MemoryPlan, SizesTheRunnerOfAModelInMemory) {
  const EngineConfig config = tiny_config().engine;
  LoadedModel loaded = load_model(kTiny / "llama_gqa", {}).value();
  const auto runner = CpuModelRunner::create(std::move(loaded.model), config).value();
  const MemoryPlan plan = plan_with(config, int64_t{1} << 40);
  EXPECT_EQ(runner->memory().activation_bytes, plan.activation_bytes);
  EXPECT_EQ(runner->info().max_logit_rows, plan.max_logit_rows);
  EXPECT_EQ(runner->memory().kv.num_blocks, plan.kv.num_blocks);
  EXPECT_EQ(runner->memory().weight_bytes, 0);  // is what available memory lacks already
}

TEST(MemoryPlan, GivesThePoolAShareOfWhatTheRestLeaves) {
  EngineConfig config = tiny_config().engine;
  config.kv_cache_memory_bytes = 0;
  config.kv_cache_memory_share = 0.5;
  const int64_t available = int64_t{14} << 20;
  const MemoryPlan plan = plan_with(config, available);
  const int64_t left =
      available - (plan.fixed_bytes() - plan.bookkeeping_bytes - plan.rounding_bytes);
  EXPECT_EQ(plan.kv.num_blocks, left / 2 / plan.kv.block_bytes);
  EXPECT_LE(plan.peak_bytes(), available);
}

// blocks = (total x utilisation - everything else at its peak) / bytes per block
TEST(MemoryPlan, TakesTheUtilisationOfTheWholeMemory) {
  EngineConfig config = tiny_config().engine;
  config.kv_cache_memory_bytes = 0;
  config.gpu_memory_utilization = 0.5;
  const int64_t total = int64_t{40} << 20;
  const MemoryPlan plan = plan_with(config, total);
  EXPECT_TRUE(plan.refusal.ok()) << plan.refusal.message();
  EXPECT_LE(plan.peak_bytes(), total / 2);
  // Another block, with its bookkeeping and its page, would be too many.
  EXPECT_GT(plan.peak_bytes() + plan.kv.block_bytes + (2 << 20), total / 2);
  config.gpu_memory_utilization = 1;
  expect_refused(plan_with(config, total, 30 << 20),
                 {"but 30.0 MiB",
                  "lower --gpu-memory-utilization, or say instead "
                  "--kv-cache-memory-bytes "});
  config.gpu_memory_utilization = 0.01;
  expect_refused(plan_with(config, total),
                 {"what --gpu-memory-utilization leaves", "raise --gpu-memory-utilization"});
}

TEST(MemoryPlan, NamesTheFlagThatMends) {
  EngineConfig config = tiny_config().engine;
  config.kv_cache_memory_bytes = 100 << 20;
  expect_refused(plan_with(config, 100 << 20),
                 {"but 100.0 MiB (104857600 bytes) are available",
                  "KV pool 100.0 MiB",
                  "lower --kv-cache-memory-bytes to at most "});
  config.kv_cache_memory_bytes = 1 << 20;
  config.preemption_mode = "swap";
  config.swap_space_bytes = int64_t{1} << 40;
  expect_refused(plan_with(config, 100 << 20),
                 {"swap space 1024.00 GiB", "lower --swap-space to at most "});
  config.kv_cache_memory_bytes = 0;  // what the swap space leaves: nothing
  expect_refused(plan_with(config, 100 << 20), {"lower --swap-space to at most "});
  config.kv_cache_memory_bytes = 1 << 20;
  config.swap_space_bytes = 100;
  expect_refused(plan_with(config, 100 << 20), {"--swap-space 100 holds no KV block of 4096"});
  config.swap_space_bytes = INT64_MAX;
  expect_refused(plan_with(config, 100 << 20), {"lower --swap-space"});
  config.swap_space_bytes = 0;
  config.preemption_mode = "recompute";
  config.kv_cache_memory_bytes = 8 << 10;
  config.max_model_len = 64;
  expect_refused(plan_with(config, 100 << 20),
                 {"--kv-cache-memory-bytes 8192 holds 2 KV blocks of 4096 bytes",
                  "one sequence needs 4 (16384 bytes)"});
  config = tiny_config().engine;
  config.max_num_batched_tokens = 16384;
  expect_refused(plan_with(config, 20 << 20), {"lower --max-num-batched-tokens or --max-num-seqs"});
  config = tiny_config().engine;
  expect_refused(plan_with(config, 1 << 20), {"take a smaller model"});
}

// The number in the message is one that works.
TEST(MemoryPlan, TheNumberItNamesIsEnough) {
  const auto number_in = [](const MemoryPlan& plan) {
    const std::string message = plan.refusal.message(), before = "to at most ";
    const size_t at = message.find(before);
    EXPECT_NE(at, std::string::npos) << message;
    return at == std::string::npos ? 0 : std::stoll(message.substr(at + before.size()));
  };
  EngineConfig config = tiny_config().engine;
  config.kv_cache_memory_bytes = 200 << 20;
  config.kv_cache_memory_bytes = number_in(plan_with(config, 100 << 20));
  EXPECT_GT(config.kv_cache_memory_bytes, 60 << 20);
  MemoryPlan mended = plan_with(config, 100 << 20);
  EXPECT_TRUE(mended.refusal.ok()) << mended.refusal.message();
  config.kv_cache_memory_bytes = 10 << 20;
  config.preemption_mode = "swap";
  config.swap_space_bytes = 300 << 20;
  config.swap_space_bytes = number_in(plan_with(config, 100 << 20));
  EXPECT_GT(config.swap_space_bytes, 50 << 20);
  mended = plan_with(config, 100 << 20);
  EXPECT_TRUE(mended.refusal.ok()) << mended.refusal.message();
}

}  // namespace
}  // namespace quire
