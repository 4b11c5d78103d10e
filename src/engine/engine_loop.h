// The engine thread's state and its loop.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/monitor.h"
#include "base/queue.h"
#include "engine/engine.h"
#include "engine/mailbox.h"
#include "engine/observe.h"
#include "engine/scheduler.h"

namespace quire {

struct SubmitMessage {
  uint64_t number;  // names the request between the threads
  Request request;
  std::shared_ptr<Mailbox> mailbox;
  std::chrono::steady_clock::time_point submit_time;
};
struct CancelMessage {
  uint64_t number;
  int index;  // of the answer, or kAllAnswers
};
struct SnapshotMessage {
  std::shared_ptr<SnapshotExchange> exchange;
};
struct SubscribeMessage {
  std::shared_ptr<KvEventQueue> queue;
  bool ends = false;  // unsubscribes
};
struct TaskMessage {
  std::function<void()> run;
};
using EngineMessage =
    std::variant<SubmitMessage, CancelMessage, SnapshotMessage, SubscribeMessage, TaskMessage>;

// What the engine thread shares with all others; outlives the engine where a stream does.
struct EngineShared {
  explicit EngineShared(int max_queued) : max_queued(max_queued), inbox(max_queued) {}
  // Takes a place in the line and queues the message, or says why not.
  Status submit(SubmitMessage message);
  Status run_between_steps(TaskMessage message);

  const int max_queued;
  std::atomic<int> num_queued{0};  // submitted and not running yet
  std::atomic<int> num_tasks{0};   // in the inbox
  std::atomic<uint64_t> next_request{0};
  BoundedQueue<EngineMessage> inbox;
  Monitor<EngineStats> stats;
  Monitor<Status> failure;  // not ok: the runner failed and the engine has stopped
};

class EngineLoop {
 public:
  EngineLoop(const SchedulerConfig& config,
             std::unique_ptr<ModelRunner> runner,
             std::shared_ptr<EngineShared> shared);
  // Until the inbox is closed or the runner fails; then ends every open request.
  void run();

 private:
  // One request: a group of sequences, named by their arrival.
  struct OpenRequest {
    uint64_t number = 0;
    std::vector<SequenceId> open;  // sequences that have not ended
    std::shared_ptr<Mailbox> mailbox;
    std::function<void(int, std::span<const float>)> logits_tap;
    std::function<std::any(TokenDelta&)> prepare;
    bool wants_logprobs = false, wants_prompt_logprobs = false;
    bool queued = true;       // counted in num_queued
    bool has_answer = false;  // one has ended without error
    std::chrono::steady_clock::time_point submit_time;
    double scheduled_time = 0, first_token_time = 0;
  };
  struct InFlight {
    ScheduledBatch batch;
    bool launched = false;
    std::chrono::steady_clock::time_point launch_time;
  };

  // An answer's message that waits for the end of its dynamic or static batch.
  struct HeldDelta {
    std::shared_ptr<Mailbox> mailbox;
    TokenDelta delta;
    std::chrono::steady_clock::time_point submit_time;
  };

  bool drain_inbox();
  double seconds_at(std::chrono::steady_clock::time_point time) const;
  void send(const OpenRequest& request, TokenDelta delta);
  void send_held(const Mailbox* only_to = nullptr);
  Status step();
  Status collect_and_commit(InFlight& step);
  void open(SubmitMessage message);
  void run_task(const TaskMessage& task);
  void cancel(CancelMessage message);
  void observe(const EngineMessage& message);
  void note_cost(const InFlight& step);
  void note_scheduled(const ScheduledBatch& batch);
  void note_first_tokens(const ScheduledBatch& batch);
  void show_logits(const ScheduledBatch& batch);
  void deliver(const CommittedSequence& done);
  void end(OpenRequest& request, SequenceId id, TokenDelta delta);
  void end_all_of(OpenRequest& request, FinishReason reason, const Status& error);
  void abort(OpenRequest& request, SequenceId id, FinishReason reason, const Status& error);
  void forget_if_ended(uint64_t arrival);
  OpenRequest* request_of(SequenceId id);
  void end_all(FinishReason reason, const Status& error);
  void publish_stats();

  std::unique_ptr<ModelRunner> runner_;
  std::shared_ptr<EngineShared> shared_;
  Scheduler scheduler_;
  KvEventHub events_;
  std::array<InFlight, 2> steps_;  // one being computed, one being prepared
  int64_t num_steps_ = 0, num_request_batches_ = 0;
  double seconds_per_token_ = 0;  // of prompts
  const std::chrono::steady_clock::time_point start_time_ = std::chrono::steady_clock::now();
  std::vector<HeldDelta> held_;
  StepResult result_;
  std::vector<CommittedSequence> committed_;
  std::vector<EngineMessage> messages_;
  std::unordered_map<uint64_t, OpenRequest> open_;     // by arrival
  std::unordered_map<uint64_t, uint64_t> arrival_of_;  // request number -> arrival
};

}  // namespace quire
