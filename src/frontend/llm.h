// The library's face: a model that answers text. Used by the command line, the server and Python.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "base/task_pool.h"
#include "engine/engine.h"
#include "engine/memory_plan.h"
#include "frontend/chat_prompt.h"
#include "frontend/text_model.h"
#include "frontend/text_stream.h"
#include "model/loader.h"

namespace quire {

inline constexpr int kDefaultMaxTokens = 512;

struct LlmConfig {
  std::string model;  // GGUF file, Hugging Face folder, cached name or org/name
  EngineConfig engine;
  std::string chat_template_file;  // overrides the model's own
  int num_tokenizer_threads = 1;
  int max_queued_tokenizations = 4096;
  // false: the engine thread encodes prompts and makes text of tokens, between steps, which wait;
  // for experiments. max_num_queued_reqs bounds the prompts that wait then.
  bool async_tokenize = true;
};

struct GenerateRequest {
  std::string id;
  // Text (encoded with the model's special tokens), token ids, or a chat.
  std::variant<std::string, std::vector<TokenId>, ChatPrompt> prompt;
  SamplingParams sampling;
  TextStream::Options output;
  std::string cache_salt;
  std::function<void(int position, std::span<const float> logits)> logits_tap;  // engine/request.h
  // For a reader that does not block: called by other threads whenever TextStream::poll() may give
  // something new, admission included. It must not block itself, and it may be called after the
  // stream is gone.
  std::function<void()> on_output;
};

struct LoadReport {
  double seconds = 0;
  int64_t weight_bytes = 0;
  KvPoolPlan kv_plan;  // of `memory`
  MemoryPlan memory;
  std::string isa;
  int num_threads = 0;
};

// What a model is and what Llm::load() would take for it, from the headers of its files.
struct LlmPlan {
  ModelInfo info;
  MemoryPlan memory;
};
Result<LlmPlan> plan_llm(const LlmConfig& config);

// Safe to use from any thread.
class Llm {
 public:
  static Result<std::unique_ptr<Llm>> load(LlmConfig config);
  ~Llm();

  // Renders the chat, queues the rest for the tokenizer pool (async_tokenize) or the engine. What
  // the engine refuses comes out of TextStream::wait_admitted().
  Result<TextStream> submit(GenerateRequest request);

  const ModelConfig& model_config() const { return model_config_; }
  const EngineConfig& engine_config() const { return engine_config_; }
  const LoadReport& load_report() const { return report_; }
  const Tokenizer& tokenizer() const { return text_.tokenizer; }
  bool has_chat_template() const { return text_.chat_template.has_value(); }
  EngineStats stats() const { return engine_->stats(); }
  // What the model's generation_config.json recommends; greedy, and at most kDefaultMaxTokens,
  // where it says nothing.
  SamplingParams default_sampling() const;
  // `params`, with what that file recommends in place of its values.
  SamplingParams recommended_over(SamplingParams params) const;

  // The text and tokens that `prompt` becomes.
  Result<std::string> render(const ChatPrompt& prompt) const;
  Result<std::vector<TokenId>> encode_chat(std::string_view rendered) const;

 private:
  explicit Llm(TextModel text) : text_(std::move(text)) {}
  Status queue_tokenization(std::function<void()> task);

  ModelConfig model_config_;
  EngineConfig engine_config_;
  GenerationDefaults defaults_;
  LoadReport report_;
  TextModel text_;
  std::unique_ptr<Engine> engine_;
  // Last: joined first, its tasks use the others. Null without async_tokenize.
  std::unique_ptr<TaskPool> tokenizer_pool_;
};

}  // namespace quire
