#include "frontend/llm.h"

#include <chrono>
#include <utility>

#include "base/memory.h"
#include "base/platform.h"
#include "engine/cpu_model_runner.h"

namespace quire {

namespace {

// The program itself on x86-64 Linux: the pages of its code and of the libraries' that it runs
// through, the stacks of its threads, and what its allocator keeps at hand. Measured.
constexpr int64_t kProgramBytes = 16 << 20;

MemoryPlan plan_for(const OpenModel& open, const EngineConfig& config) {
  const MemoryFacts memory = memory_facts();
  return plan_memory(config,
                     open.outline(),
                     {.total_bytes = memory.total_bytes,
                      .available_bytes = memory.available_bytes,
                      .weights = open.weights(),
                      .is_loaded = false,
                      .tokenizer_bytes = tokenizer_bytes(open.info().tokenizer),
                      .program_bytes = kProgramBytes});
}

}  // namespace

Result<LlmPlan> plan_llm(const LlmConfig& config) {
  QUIRE_RETURN_IF_ERROR(config.engine.validate());
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(config.model));
  QUIRE_ASSIGN_OR_RETURN(OpenModel open, open_model(path));
  MemoryPlan memory = plan_for(open, config.engine);
  return LlmPlan{std::move(open.info()), std::move(memory)};
}

Result<std::unique_ptr<Llm>> Llm::load(LlmConfig config) {
  const auto start = std::chrono::steady_clock::now();
  QUIRE_RETURN_IF_ERROR(config.engine.validate());
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(config.model));
  QUIRE_ASSIGN_OR_RETURN(OpenModel open, open_model(path));
  const MemoryPlan plan = plan_for(open, config.engine);
  QUIRE_RETURN_IF_ERROR(plan.refusal);
  // The tokenizer before the weights: what it takes for a moment while it is made, several times
  // what it keeps, does not come on top of them.
  QUIRE_ASSIGN_OR_RETURN(TextModel text, make_text_model(open.info(), config.chat_template_file));
  open.info().tokenizer = {};
  release_freed_memory();
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded,
                         load_model(std::move(open),
                                    {.num_threads = config.engine.num_threads,
                                     .max_positions = plan.kv.max_model_len}));

  std::unique_ptr<Llm> llm(new Llm(std::move(text)));
  llm->defaults_ = loaded.info.generation;
  llm->model_config_ = loaded.model->config();
  llm->report_.weight_bytes = loaded.weight_bytes;
  QUIRE_ASSIGN_OR_RETURN(std::unique_ptr<CpuModelRunner> runner,
                         CpuModelRunner::create(std::move(loaded.model), config.engine, plan));
  llm->report_.kv_plan = plan.kv;
  llm->report_.memory = plan;
  llm->report_.isa = runner->ops().name;
  llm->report_.num_threads = runner->num_threads();
  config.engine.max_model_len = plan.kv.max_model_len;
  llm->engine_config_ = config.engine;
  QUIRE_ASSIGN_OR_RETURN(llm->engine_, Engine::create(config.engine, std::move(runner)));
  if (config.async_tokenize) {
    llm->tokenizer_pool_ =
        std::make_unique<TaskPool>(config.num_tokenizer_threads, config.max_queued_tokenizations);
  }
  llm->report_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return llm;
}

Llm::~Llm() = default;

SamplingParams Llm::default_sampling() const {
  SamplingParams params;
  params.temperature = 0;
  params.max_tokens = kDefaultMaxTokens;
  return recommended_over(std::move(params));
}

SamplingParams Llm::recommended_over(SamplingParams params) const {
  const auto take = [](auto value, auto& target) {
    if (value >= 0) target = value;
  };
  take(defaults_.temperature, params.temperature);
  take(defaults_.top_k, params.top_k);
  take(defaults_.top_p, params.top_p);
  take(defaults_.min_p, params.min_p);
  take(defaults_.repetition_penalty, params.repetition_penalty);
  take(defaults_.max_new_tokens, params.max_tokens);
  return params;
}

Result<std::string> Llm::render(const ChatPrompt& prompt) const {
  if (!text_.chat_template) {
    return invalid_argument(
        "this model has no chat template: give one with --chat-template FILE, or send a plain "
        "prompt");
  }
  return render_chat(*text_.chat_template, prompt, text_.template_tokens, text_.special_tokens);
}

Result<std::vector<TokenId>> Llm::encode_chat(std::string_view rendered) const {
  return encode_rendered(text_.tokenizer, rendered);
}

namespace {

// The work of a tokenizer thread, or of the engine's without one: text -> tokens -> engine.
Result<std::vector<TokenId>> encode(const Llm& llm,
                                    std::variant<std::string, std::vector<TokenId>>& prompt,
                                    bool rendered_chat) {
  if (auto* tokens = std::get_if<std::vector<TokenId>>(&prompt)) return std::move(*tokens);
  const std::string& text = std::get<std::string>(prompt);
  if (rendered_chat) return llm.encode_chat(text);
  return llm.tokenizer().encode(text, {.add_special_tokens = true});
}

Status check_beam_output(const SamplingParams& sampling, const TextStream::Options& output) {
  const std::string beams = "beam_width is " + std::to_string(sampling.beam_width) + ", but ";
  if (output.best_of) {
    return invalid_argument(beams + "best_of is " + std::to_string(*output.best_of) +
                            ", and beam search ranks its answers itself: leave out one of them");
  }
  if (output.stop.empty()) return {};
  return invalid_argument(beams + "stop is \"" + output.stop[0] +
                          "\", and beam search chooses by tokens: use stop_token_ids instead");
}

// To give the n best of best_of answers, the engine computes them all, with their
// log-probabilities.
Result<TextStream::Plan> plan_answers(SamplingParams* sampling,
                                      const TextStream::Options& output,
                                      const EngineConfig& engine) {
  const auto check_count = [&engine](const std::string& value, int count) -> Status {
    if (count <= engine.max_num_seqs) return {};
    return invalid_argument(value + ", but max_num_seqs is " + std::to_string(engine.max_num_seqs) +
                            ", and answers to one prompt run together: lower it or raise "
                            "--max-num-seqs");
  };
  if (sampling->is_beam_search()) {
    QUIRE_RETURN_IF_ERROR(check_count("n is " + std::to_string(sampling->n), sampling->n));
    QUIRE_RETURN_IF_ERROR(
        check_count("beam_width is " + std::to_string(sampling->beam_width), sampling->beam_width));
    QUIRE_RETURN_IF_ERROR(check_beam_output(*sampling, output));
    return TextStream::Plan{sampling->n, sampling->n};
  }
  const std::optional<int> best_of = output.best_of;
  const int n = sampling->n, computed = best_of.value_or(n);
  const std::string value = (best_of ? "best_of is " : "n is ") + std::to_string(computed);
  QUIRE_RETURN_IF_ERROR(check_count(value, computed));
  if (computed > 1 && sampling->temperature == 0) {
    return invalid_argument(value + ", but with temperature 0 (greedy) all answers are the same: " +
                            "set a temperature");
  }
  if (computed == n) return TextStream::Plan{n, n};
  const TextStream::Plan plan{computed, n, sampling->logprobs.has_value()};
  sampling->n = computed;
  if (!sampling->logprobs) sampling->logprobs = 0;
  return plan;
}

}  // namespace

Result<TextStream> Llm::submit(GenerateRequest in) {
  QUIRE_RETURN_IF_ERROR(in.output.validate(in.sampling.n));
  QUIRE_ASSIGN_OR_RETURN(const TextStream::Plan plan,
                         plan_answers(&in.sampling, in.output, engine_config_));
  std::variant<std::string, std::vector<TokenId>> prompt;
  const bool is_chat = std::holds_alternative<ChatPrompt>(in.prompt);
  if (is_chat) {
    QUIRE_ASSIGN_OR_RETURN(prompt, render(std::get<ChatPrompt>(in.prompt)));
  } else if (auto* text = std::get_if<std::string>(&in.prompt)) {
    prompt = std::move(*text);
  } else {
    prompt = std::move(std::get<std::vector<TokenId>>(in.prompt));
  }

  auto pending = std::make_shared<PendingRequest>();
  const bool is_prepared = tokenizer_pool_ == nullptr;
  TextStream stream(pending, text_.tokenizer, in.output, plan, is_prepared);
  auto request = std::make_shared<Request>();
  if (is_prepared) request->prepare = stream.preparer();
  request->id = std::move(in.id);
  request->sampling = std::move(in.sampling);
  request->cache_salt = std::move(in.cache_salt);
  request->logits_tap = std::move(in.logits_tap);
  request->on_output = in.on_output;
  auto admit = [this, pending, request, prompt = std::move(prompt), is_chat]() mutable
      -> Result<TokenStream> {
    if (pending->cancelled) return cancelled("the request was cancelled");
    QUIRE_ASSIGN_OR_RETURN(request->prompt, encode(*this, prompt, is_chat));
    pending->prompt = request->prompt;
    return engine_->submit(std::move(*request));
  };
  QUIRE_RETURN_IF_ERROR(queue_tokenization(
      [pending, admit = std::move(admit), on_output = std::move(in.on_output)]() mutable {
        pending->admitted.set_value(admit());
        if (on_output) on_output();
      }));
  return stream;
}

Status Llm::queue_tokenization(std::function<void()> task) {
  if (tokenizer_pool_ == nullptr) return engine_->run_between_steps(std::move(task));
  if (tokenizer_pool_->submit(std::move(task))) return {};
  return resource_exhausted("more than " + std::to_string(tokenizer_pool_->max_queued()) +
                            " prompts wait for the tokenizer; try again later");
}

}  // namespace quire
