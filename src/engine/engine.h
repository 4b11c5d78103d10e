// The engine: tokens in, tokens out. One thread owns the scheduler, the block pool and all
// sequences; it meets the rest of the program at a bounded inbox and at one mailbox per request.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "engine/engine_config.h"
#include "engine/model_runner.h"
#include "engine/observe.h"
#include "engine/request.h"

namespace quire {

class Mailbox;

// The reading end of a request. Its destructor cancels what is still running: disconnect, stop
// string, deadline and Ctrl-C are one code path. One reader.
class TokenStream {
 public:
  TokenStream(TokenStream&&) noexcept;
  TokenStream& operator=(TokenStream&&) noexcept;
  ~TokenStream();
  // Blocks until something is there. After a delta with a finish reason: nullopt.
  std::optional<TokenDelta> next();
  // nullopt also when nothing came within `timeout`; finished() tells which.
  std::optional<TokenDelta> next_for(std::chrono::milliseconds timeout);
  bool finished() const;
  void cancel();
  // Ends one of the n answers; the others go on.
  void cancel(int index);

 private:
  friend class Engine;
  explicit TokenStream(std::shared_ptr<Mailbox> mailbox);
  std::shared_ptr<Mailbox> mailbox_;
};

// A consistent snapshot, taken between steps.
struct EngineStats {
  int64_t num_blocks = 0, num_free_blocks = 0, num_cached_blocks = 0, num_used_blocks = 0;
  int64_t peak_used_blocks = 0;
  int num_running = 0, num_waiting = 0;
  int64_t num_steps = 0, num_preemptions = 0, num_prompt_tokens = 0, num_generated_tokens = 0;
  int64_t prefix_cache_queries = 0, prefix_cache_hits = 0,
          num_evictions = 0;                        // tokens, tokens, blocks
  int64_t num_swapped_out = 0, num_swapped_in = 0;  // blocks
  int64_t num_computed_tokens = 0;  // of all steps: again after a preemption or without a cache
  int64_t num_copied_blocks = 0;    // on write, and by contiguous policies
  // When the engine last ended a step or looked into its inbox.
  std::chrono::steady_clock::time_point last_progress = {};
};

class Engine {
 public:
  // Starts the engine thread. The runner's pool size decides the number of blocks.
  static Result<std::unique_ptr<Engine>> create(EngineConfig config,
                                                std::unique_ptr<ModelRunner> runner);
  ~Engine();  // cancels everything and joins

  // Refused at once: invalid sampling, empty prompt, prompt longer than max_model_len or than the
  // whole KV pool, full inbox (kResourceExhausted).
  Result<TokenStream> submit(Request request);
  // Runs `task` on the engine thread, between two steps, which wait for it. Once accepted it runs,
  // even if the engine stops before. Refused: with max_num_queued_reqs tasks waiting
  // (kResourceExhausted), or when the engine has stopped.
  Status run_between_steps(std::function<void()> task);
  EngineStats stats() const;
  // For a thread that watches: the KV pool and all sequences at a moment, as often as it reads.
  SnapshotReader snapshots();
  // What happens to KV blocks from now on; at most `capacity` events wait to be read.
  KvEventSubscription subscribe(size_t capacity = 1 << 16);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
