#include "engine/engine.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "engine/engine_loop.h"

namespace quire {

TokenStream::TokenStream(std::shared_ptr<Mailbox> mailbox) : mailbox_(std::move(mailbox)) {}
TokenStream::TokenStream(TokenStream&&) noexcept = default;
TokenStream& TokenStream::operator=(TokenStream&& other) noexcept {
  if (this != &other) {
    if (mailbox_) mailbox_->cancel();
    mailbox_ = std::move(other.mailbox_);
  }
  return *this;
}
TokenStream::~TokenStream() {
  if (mailbox_) mailbox_->cancel();
}
std::optional<TokenDelta> TokenStream::next() { return mailbox_->next(); }
std::optional<TokenDelta> TokenStream::next_for(std::chrono::milliseconds timeout) {
  return mailbox_->next_for(timeout);
}
bool TokenStream::finished() const { return mailbox_->finished(); }
void TokenStream::cancel() { mailbox_->cancel(); }
void TokenStream::cancel(int index) { mailbox_->cancel(index); }

struct Engine::Impl {
  Impl(EngineConfig c, const SchedulerConfig& scheduler, std::unique_ptr<ModelRunner> runner)
      : config(std::move(c)),
        info(runner->info()),
        limits{scheduler, info.num_blocks, info.block_size},
        shared(std::make_shared<EngineShared>(config.max_num_queued_reqs)),
        loop(scheduler, std::move(runner), shared),
        thread([this] { loop.run(); }) {}
  ~Impl() {
    shared->inbox.close();
    thread.join();
  }

  uint64_t draw_seed() {
    const uint64_t number = num_submitted++;
    if (config.seed) return hash_combine(*config.seed, number);
    std::random_device device;
    return (uint64_t{device()} << 32) | device();
  }

  const EngineConfig config;
  const RunnerInfo info;
  const RequestLimits limits;
  std::atomic<uint64_t> num_submitted{0};
  std::shared_ptr<EngineShared> shared;
  EngineLoop loop;
  std::thread thread;
};

namespace {

SchedulerConfig scheduler_config(const EngineConfig& config, const RunnerInfo& info) {
  SchedulerConfig result;
  const int64_t pool_tokens = int64_t{info.num_blocks} * info.block_size;
  const int most = static_cast<int>(std::min<int64_t>(info.max_model_len, pool_tokens));
  result.max_num_seqs = config.max_num_seqs;
  result.max_num_batched_tokens = config.max_num_batched_tokens;
  result.max_model_len = config.max_model_len > 0 ? config.max_model_len : most;
  result.long_prefill_token_threshold = config.long_prefill_token_threshold;
  result.max_logit_rows = info.max_logit_rows;
  result.kv_policy = *parse_kv_policy(config.kv_policy);
  result.batching = *parse_batching(config.batching);
  result.batch_size = config.batch_size;
  result.batch_window = config.batch_window_ms / 1000.0;
  result.enable_prefix_caching =
      config.enable_prefix_caching && result.kv_policy == KvPolicy::kPaged;
  result.preemption_mode = config.preemption_mode == "swap"   ? PreemptionMode::kSwap
                           : config.preemption_mode == "auto" ? PreemptionMode::kAuto
                                                              : PreemptionMode::kRecompute;
  result.num_host_blocks = info.num_host_blocks;
  result.swap_seconds_per_block = info.swap_seconds_per_block;
  return result;
}

Status check_against_runner(const EngineConfig& config, const RunnerInfo& info) {
  if (config.max_model_len > info.max_model_len) {
    return invalid_argument("--max-model-len is " + std::to_string(config.max_model_len) +
                            ", but the model runner takes at most " +
                            std::to_string(info.max_model_len) + " tokens: lower it");
  }
  if (info.max_logit_rows <= config.max_num_seqs) {
    return internal_error("the model runner has " + std::to_string(info.max_logit_rows) +
                          " logit rows for max_num_seqs " + std::to_string(config.max_num_seqs));
  }
  return Status();
}

}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(EngineConfig config,
                                               std::unique_ptr<ModelRunner> runner) {
  QUIRE_RETURN_IF_ERROR(config.validate());
  QUIRE_RETURN_IF_ERROR(check_against_runner(config, runner->info()));
  const SchedulerConfig scheduler = scheduler_config(config, runner->info());
  return std::unique_ptr<Engine>(
      new Engine(std::make_unique<Impl>(std::move(config), scheduler, std::move(runner))));
}

Result<TokenStream> Engine::submit(Request request) {
  Impl& impl = *impl_;
  const int vocab_size = impl.info.vocab_size;
  QUIRE_RETURN_IF_ERROR(request.sampling.validate(vocab_size, impl.config.max_logprobs));
  QUIRE_RETURN_IF_ERROR(
      impl.limits.check(static_cast<int>(request.prompt.size()), request.sampling));
  if (request.logits_tap && request.sampling.n > 1) {
    return invalid_argument("n is " + std::to_string(request.sampling.n) +
                            ", but logits_tap shows the logits of one answer: use n = 1");
  }
  if (request.logits_tap && request.sampling.is_beam_search()) {
    return invalid_argument("beam_width is " + std::to_string(request.sampling.beam_width) +
                            ", but logits_tap shows the logits of one answer: turn off one of "
                            "them");
  }
  for (int32_t token : request.prompt) {
    if (token < 0 || token >= vocab_size) {
      return invalid_argument("prompt token " + std::to_string(token) +
                              " is not in the vocabulary of " + std::to_string(vocab_size) +
                              " tokens");
    }
  }
  if (!request.sampling.seed) request.sampling.seed = impl.draw_seed();
  const uint64_t number = impl.shared->next_request.fetch_add(1);
  auto mailbox = std::make_shared<Mailbox>(
      request.sampling.n,
      [shared = impl.shared, number](int index) {
        shared->inbox.push_always(CancelMessage{number, index});
      },
      std::move(request.on_output));
  QUIRE_RETURN_IF_ERROR(impl.shared->submit(
      SubmitMessage{number, std::move(request), mailbox, std::chrono::steady_clock::now()}));
  return TokenStream(std::move(mailbox));
}

Status Engine::run_between_steps(std::function<void()> task) {
  return impl_->shared->run_between_steps({std::move(task)});
}

EngineStats Engine::stats() const {
  return impl_->shared->stats.with([](const EngineStats& stats) { return stats; });
}

SnapshotReader Engine::snapshots() {
  return SnapshotReader([shared = impl_->shared](std::shared_ptr<SnapshotExchange> exchange) {
    return shared->inbox.push_always(SnapshotMessage{std::move(exchange)});
  });
}

KvEventSubscription Engine::subscribe(size_t capacity) {
  auto queue = std::make_shared<KvEventQueue>(capacity);
  const std::shared_ptr<EngineShared>& shared = impl_->shared;
  if (!shared->inbox.push_always(SubscribeMessage{queue})) queue->close();
  return KvEventSubscription(
      queue, [shared, queue] { shared->inbox.push_always(SubscribeMessage{queue, true}); });
}

}  // namespace quire
