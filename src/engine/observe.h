// Watching a running engine from another thread, without stopping it: snapshots on request, and a
// stream of what happens to KV blocks. Nobody watching costs one branch an event.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/monitor.h"
#include "base/status.h"
#include "engine/snapshot.h"
#include "kv/kv_events.h"

namespace quire {

// The place where a reader's buffer and the engine meet. The engine fills it between two steps; the
// reader swaps it for the one it has read. Neither waits for more than that.
class SnapshotExchange {
 public:
  // Engine thread.
  void fill(const Scheduler& scheduler, int64_t step, int64_t num_kv_events);
  // Reader.
  bool take(EngineSnapshot* front);  // false: not filled since the last take
  void wait();                       // until it is filled

 private:
  struct State {
    EngineSnapshot back;
    bool filled = false;
  };
  Monitor<State> state_;
};

// One reader with two buffers: what it reads stays as it is while the engine fills the other. Made
// by Engine::snapshots(); may outlive the engine.
class SnapshotReader {
 public:
  // `ask` tells the engine to fill the exchange; false when it has stopped.
  using Ask = std::function<bool(std::shared_ptr<SnapshotExchange>)>;
  explicit SnapshotReader(Ask ask)
      : ask_(std::move(ask)), exchange_(std::make_shared<SnapshotExchange>()) {}

  // Asks for the state after the step that the engine is in, and waits for it. kUnavailable when
  // the engine has stopped.
  Result<const EngineSnapshot*> read();
  // The same without waiting: asks, and takes what came of an earlier question. Null: nothing yet.
  Result<const EngineSnapshot*> poll();

 private:
  Status ask();
  Ask ask_;
  std::shared_ptr<SnapshotExchange> exchange_;
  EngineSnapshot front_;
  bool asked_ = false;
};

// What one subscriber has not read yet: at most `capacity` events, and how many did not fit.
class KvEventQueue {
 public:
  explicit KvEventQueue(size_t capacity) : state_(capacity) {}
  size_t capacity() const {
    return state_.with([](const State& s) { return s.log.capacity(); });
  }
  // Engine thread, once a step.
  void deliver(std::span<const KvEvent> events, int64_t num_lost);
  // Engine thread: nothing will follow.
  void close();
  // Reader. Swaps *events, emptied, with what is there; waits up to `timeout` for the first. False
  // when nothing came.
  bool take(std::chrono::nanoseconds timeout, KvEventLog* events);
  int64_t num_dropped() const;
  bool is_closed() const;

 private:
  struct State {
    explicit State(size_t capacity) : log(capacity) {}
    KvEventLog log;
    int64_t num_dropped = 0;
    bool closed = false;
  };
  Monitor<State> state_;
};

// The reading end; its destructor unsubscribes. Made by Engine::subscribe(). One reader.
class KvEventSubscription {
 public:
  KvEventSubscription(std::shared_ptr<KvEventQueue> queue, std::function<void()> unsubscribe);
  KvEventSubscription(KvEventSubscription&&) noexcept = default;
  KvEventSubscription& operator=(KvEventSubscription&&) = delete;
  ~KvEventSubscription();

  // Everything since the last call, in order and by whole steps, valid until the next; waits up to
  // `timeout` for the first.
  std::span<const KvEvent> next(std::chrono::nanoseconds timeout);
  // Events that came while `capacity` others were unread, in all.
  int64_t num_dropped() const { return queue_->num_dropped(); }
  bool engine_has_stopped() const { return queue_->is_closed(); }

 private:
  std::shared_ptr<KvEventQueue> queue_;
  KvEventLog front_;
  std::function<void()> unsubscribe_;
};

// The engine thread's side of all subscriptions. Its log is handed to the pool only while somebody
// listens.
class KvEventHub {
 public:
  void add(std::shared_ptr<KvEventQueue> queue, Scheduler* scheduler);
  void remove(const KvEventQueue* queue, Scheduler* scheduler);
  // Hands out what happened since the last call.
  void publish(int64_t step);
  void close();
  int64_t num_published() const { return num_published_; }

 private:
  static constexpr size_t kMostAStep = 1 << 16;
  std::vector<std::shared_ptr<KvEventQueue>> queues_;
  std::unique_ptr<KvEventLog> log_;
  int64_t num_published_ = 0, num_lost_ = 0;
};

}  // namespace quire
