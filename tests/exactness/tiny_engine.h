// The tiny model behind the engine, for tests that compare the bits of whole answers.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/cpu_model_runner.h"
#include "engine/engine.h"
#include "kernels/backend.h"
#include "kernels/ops.h"
#include "model/loader.h"

namespace quire::testing {

inline constexpr int kTinyBlockSize = 4;

inline std::shared_ptr<const Model> tiny_model() {
  static const std::shared_ptr<const Model> model =
      load_model(std::filesystem::path(QUIRE_TESTDATA) / "golden" / "tiny" / "llama_gqa",
                 LoadOptions{})
          .value()
          .model;
  return model;
}

// Of KV, in all layers.
inline int64_t kv_bytes_per_token(const Model& model) {
  const ModelConfig& m = model.config();
  return kv_block_bytes({DType::kF16, kTinyBlockSize, m.num_kv_heads, m.head_dim}) /
         kTinyBlockSize * m.num_layers;
}

inline EngineConfig small_config(const Model& model, int num_kv_tokens) {
  EngineConfig config;
  config.num_threads = 2;
  config.block_size = kTinyBlockSize;
  config.max_num_seqs = 12;
  config.max_num_batched_tokens = 40;
  config.kv_cache_memory_bytes = num_kv_tokens * kv_bytes_per_token(model);
  return config;
}

inline std::unique_ptr<Engine> make_engine(std::shared_ptr<const Model> model,
                                           const EngineConfig& config) {
  auto runner = CpuModelRunner::create(std::move(model), config);
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  return Engine::create(config, std::move(runner).value()).value();
}

// One answer, bit by bit.
struct AnswerBits {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> logprobs;  // of the sampled tokens and their alternatives
  uint64_t score = 0;              // of a beam search's
  bool operator==(const AnswerBits&) const = default;
};

// To the end of all n answers.
inline std::vector<AnswerBits> read_bits(TokenStream& stream, int n) {
  std::vector<AnswerBits> answers(n);
  while (std::optional<TokenDelta> delta = stream.next()) {
    EXPECT_TRUE(delta->error.ok()) << delta->error.message();
    AnswerBits& answer = answers[delta->index];
    answer.tokens.insert(answer.tokens.end(), delta->tokens.begin(), delta->tokens.end());
    for (const LogprobList& list : delta->logprobs) {
      for (const TokenLogprob& l : list) {
        answer.logprobs.push_back(std::bit_cast<uint32_t>(l.logprob));
      }
    }
    if (delta->score) answer.score = std::bit_cast<uint64_t>(*delta->score);
  }
  return answers;
}

// ISA levels that run here.
inline std::vector<std::string> levels_that_run() {
  std::vector<std::string> names;
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) names.push_back(level.name);
  }
  return names;
}

}  // namespace quire::testing
