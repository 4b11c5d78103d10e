#include "engine/engine_loop.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/mutants.h"

namespace quire {

namespace {
double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
bool is_failure(const TokenDelta& delta) {
  return delta.finish_reason == FinishReason::kAborted ||
         delta.finish_reason == FinishReason::kError;
}

Status not_finite(const Sequence& seq) {
  return internal_error("the model's logits are not finite (NaN) after " +
                        std::to_string(seq.tokens.size()) + " tokens");
}

Status too_few_hypotheses(const SamplingParams& sampling) {
  return invalid_argument(
      "the beam search ended with fewer than n = " + std::to_string(sampling.n) +
      " answers, because too few tokens are allowed: lower n or allow more "
      "tokens (allowed_token_ids, banned_token_ids, logit_bias)");
}
}  // namespace

Status EngineShared::submit(SubmitMessage message) {
  Status failed = failure.with([](const Status& s) { return s; });
  if (!failed.ok()) return failed;
  if (num_queued.fetch_add(1) >= max_queued) {
    num_queued.fetch_sub(1);
    return resource_exhausted("the queue is full: " + std::to_string(max_queued) +
                              " requests wait already; try again later or raise "
                              "--max-num-queued-reqs");
  }
  const PushResult pushed = inbox.try_push(std::move(message));
  if (pushed == PushResult::kOk) return Status();
  num_queued.fetch_sub(1);
  QUIRE_CHECK(pushed == PushResult::kClosed);  // num_queued bounds the inbox
  return unavailable("the engine is shutting down");
}

// The inbox takes every task, as it does what frees places: num_tasks is the bound.
Status EngineShared::run_between_steps(TaskMessage message) {
  Status failed = failure.with([](const Status& s) { return s; });
  if (!failed.ok()) return failed;
  if (num_tasks.fetch_add(1) >= max_queued && !mutant("engine_tasks_unbounded")) {
    num_tasks.fetch_sub(1);
    return resource_exhausted(std::to_string(max_queued) +
                              " tasks wait for the engine already; try again later or raise "
                              "--max-num-queued-reqs");
  }
  if (inbox.push_always(std::move(message))) return Status();
  num_tasks.fetch_sub(1);
  return unavailable("the engine is shutting down");
}

EngineLoop::EngineLoop(const SchedulerConfig& config,
                       std::unique_ptr<ModelRunner> runner,
                       std::shared_ptr<EngineShared> shared)
    : runner_(std::move(runner)),
      shared_(std::move(shared)),
      scheduler_(config, runner_->info().num_blocks, runner_->info().block_size) {
  publish_stats();
}

void EngineLoop::run() {
  Status status;
  while (status.ok() && drain_inbox()) status = step();
  if (status.ok()) {
    end_all(FinishReason::kAborted, Status());
    return;
  }
  const Status failure = status.with_context("the engine has stopped");
  shared_->failure.update([&](Status& s) { s = failure; });
  shared_->inbox.close();
  end_all(FinishReason::kError, failure);
}

// One turn of the engine. With a runner that overlaps, this step is launched before the previous
// one is collected.
Status EngineLoop::step() {
  InFlight& current = steps_[num_steps_ % 2];
  InFlight& previous = steps_[(num_steps_ + 1) % 2];
  scheduler_.schedule(&current.batch, seconds_at(std::chrono::steady_clock::now()));
  const int64_t num_batches = scheduler_.stats().num_request_batches;
  if (num_batches != num_request_batches_) send_held();  // of the batch before
  num_request_batches_ = num_batches;
  note_scheduled(current.batch);
  if (!current.batch.empty()) {
    current.launch_time = std::chrono::steady_clock::now();
    QUIRE_RETURN_IF_ERROR(runner_->launch(current.batch));
    current.launched = true;
    ++num_steps_;
  }
  const bool overlap = runner_->info().max_in_flight > 1 && !current.batch.empty();
  InFlight& oldest = overlap || previous.launched ? previous : current;
  return collect_and_commit(oldest);
}

Status EngineLoop::collect_and_commit(InFlight& step) {
  if (!step.launched) return Status();
  step.launched = false;
  QUIRE_RETURN_IF_ERROR(runner_->collect(&result_));
  note_cost(step);
  note_first_tokens(step.batch);
  show_logits(step.batch);
  scheduler_.commit(step.batch, result_, &committed_);
  publish_stats();  // before any reader learns of it
  for (const CommittedSequence& done : committed_) deliver(done);
  if (scheduler_.num_running() == 0) send_held();
  return Status();
}

// What a token of a prompt takes, as a moving average over the steps that are mostly prompt.
void EngineLoop::note_cost(const InFlight& step) {
  const auto num_tokens = static_cast<int64_t>(step.batch.tokens.size());
  if (num_tokens < 4 * static_cast<int64_t>(step.batch.sequences.size()) || num_tokens == 0) return;
  const double cost = seconds_since(step.launch_time) / static_cast<double>(num_tokens);
  seconds_per_token_ += (seconds_per_token_ == 0 ? 1 : 0.2) * (cost - seconds_per_token_);
  scheduler_.set_recompute_cost(seconds_per_token_);
}

// False when the engine is to stop. Waits for a message when there is nothing to do.
bool EngineLoop::drain_inbox() {
  const bool in_flight = steps_[0].launched || steps_[1].launched;
  messages_.clear();
  const auto now = std::chrono::steady_clock::now();
  const std::optional<double> start = scheduler_.waits_until(seconds_at(now));
  const bool is_open =
      start && !in_flight
          ? shared_->inbox.drain_for(
                &messages_,
                std::chrono::nanoseconds(static_cast<int64_t>(1e9 * (*start - seconds_at(now)))))
          : shared_->inbox.drain(&messages_, !scheduler_.has_work() && !in_flight);
  if (!is_open) return false;
  for (EngineMessage& message : messages_) {
    if (auto* submit = std::get_if<SubmitMessage>(&message)) {
      open(std::move(*submit));
    } else if (auto* cancelled = std::get_if<CancelMessage>(&message)) {
      cancel(*cancelled);
    } else if (const auto* task = std::get_if<TaskMessage>(&message)) {
      run_task(*task);
    } else {
      observe(message);
    }
  }
  if (!messages_.empty()) publish_stats();
  if (scheduler_.num_running() == 0) send_held();  // the last member was cancelled
  return true;
}

void EngineLoop::run_task(const TaskMessage& task) {
  shared_->num_tasks.fetch_sub(1);
  task.run();
}

void EngineLoop::open(SubmitMessage message) {
  Request& request = message.request;
  SequenceSpec spec;
  spec.prompt = std::move(request.prompt);
  spec.eos_token_ids = runner_->info().eos_token_ids;
  spec.cache_salt = std::move(request.cache_salt);
  spec.submit_time = seconds_at(message.submit_time);
  spec.wants_all_rows = request.sampling.prompt_logprobs.has_value() || request.logits_tap;
  OpenRequest entry;
  entry.number = message.number;
  entry.mailbox = std::move(message.mailbox);
  entry.logits_tap = std::move(request.logits_tap);
  entry.prepare = std::move(request.prepare);
  entry.wants_logprobs = request.sampling.logprobs.has_value();
  entry.wants_prompt_logprobs = request.sampling.prompt_logprobs.has_value();
  entry.submit_time = message.submit_time;
  const int num_answers = request.sampling.n;
  spec.sampling = std::move(request.sampling);
  const Result<SequenceId> id = scheduler_.add(std::move(spec));
  if (!id.ok()) {  // submit() asked the same question
    shared_->num_queued.fetch_sub(1);
    for (int i = 0; i < num_answers; ++i) {
      TokenDelta delta;
      delta.index = i;
      delta.finish_reason = FinishReason::kError;
      delta.error = id.status();
      send(entry, std::move(delta));
    }
    return;
  }
  const Sequence& first = scheduler_.sequence(*id);
  entry.open = scheduler_.answers_of(*id);
  arrival_of_[message.number] = first.arrival;
  open_.insert_or_assign(first.arrival, std::move(entry));
}

void EngineLoop::cancel(CancelMessage message) {
  const auto found = arrival_of_.find(message.number);
  if (found == arrival_of_.end() || mutant("engine_ignores_cancel")) return;
  const uint64_t arrival = found->second;
  OpenRequest& request = open_.at(arrival);
  // A beam search has all its answers at its end: without one of them it is over.
  const bool ends_all = scheduler_.sequence(request.open.front()).is_beam();
  if (message.index == kAllAnswers || ends_all) {
    end_all_of(request, FinishReason::kAborted, Status());
  } else {
    const auto is_meant = [&](SequenceId id) {
      return scheduler_.sequence(id).sample_index == message.index;
    };
    const auto id = std::ranges::find_if(request.open, is_meant);
    if (id != request.open.end()) abort(request, *id, FinishReason::kAborted, Status());
  }
  forget_if_ended(arrival);
}

void EngineLoop::forget_if_ended(uint64_t arrival) {
  const auto request = open_.find(arrival);
  if (!request->second.open.empty()) return;
  arrival_of_.erase(request->second.number);
  open_.erase(request);
}

// What those who watch ask for.
void EngineLoop::observe(const EngineMessage& message) {
  events_.publish(num_steps_);
  if (const auto* snapshot = std::get_if<SnapshotMessage>(&message)) {
    snapshot->exchange->fill(scheduler_, num_steps_, events_.num_published());
    return;
  }
  const auto& subscription = std::get<SubscribeMessage>(message);
  if (subscription.ends) {
    events_.remove(subscription.queue.get(), &scheduler_);
  } else {
    events_.add(subscription.queue, &scheduler_);
  }
}

EngineLoop::OpenRequest* EngineLoop::request_of(SequenceId id) {
  const auto found = open_.find(scheduler_.sequence(id).arrival);
  return found == open_.end() ? nullptr : &found->second;
}

void EngineLoop::note_scheduled(const ScheduledBatch& batch) {
  for (const NewSequence& fresh : batch.new_sequences) {
    for (const ScheduledSequence& entry : batch.sequences) {
      if (entry.slot != fresh.slot) continue;
      OpenRequest* request = request_of(entry.id);
      if (!request->queued) continue;
      request->queued = false;
      shared_->num_queued.fetch_sub(1);
      request->scheduled_time = seconds_since(request->submit_time);
    }
  }
}

// Of a beam search, too, whose tokens are told only at its end.
void EngineLoop::note_first_tokens(const ScheduledBatch& batch) {
  for (const ScheduledSequence& entry : batch.sequences) {
    OpenRequest* request = entry.samples ? request_of(entry.id) : nullptr;
    if (request == nullptr || request->first_token_time != 0) continue;
    request->first_token_time = seconds_since(request->submit_time);
  }
}

void EngineLoop::show_logits(const ScheduledBatch& batch) {
  for (const ScheduledSequence& entry : batch.sequences) {
    const OpenRequest* request = request_of(entry.id);
    if (request == nullptr || !request->logits_tap) continue;
    const int first_position = entry.start + entry.num_tokens - entry.num_rows;
    for (int i = 0; i < entry.num_rows; ++i) {
      request->logits_tap(first_position + i, result_.logits_row(entry.first_row + i));
    }
  }
}

void EngineLoop::deliver(const CommittedSequence& done) {
  OpenRequest& request = *request_of(done.id);
  const Sequence& seq = scheduler_.sequence(done.id);
  SequenceLogprobs& logprobs = result_.logprobs[done.batch_index];
  TokenDelta delta;
  delta.index = seq.sample_index;
  delta.tokens.assign(seq.tokens.end() - done.num_new_tokens, seq.tokens.end());
  if (request.wants_logprobs && done.num_new_tokens > 0) {
    delta.logprobs.push_back(std::move(logprobs.sampled));
  }
  if (request.wants_prompt_logprobs) delta.prompt_logprobs = std::move(logprobs.prompt);
  delta.finish_reason = done.finish_reason;
  if (done.finish_reason == FinishReason::kNone) {
    const bool worth_sending = !delta.tokens.empty() || !delta.prompt_logprobs.empty();
    if (worth_sending) send(request, std::move(delta));
    return;
  }
  if (done.finish_reason == FinishReason::kError) {
    delta.error =
        seq.is_beam() && request.has_answer ? too_few_hypotheses(seq.sampling) : not_finite(seq);
  }
  end(request, done.id, std::move(delta));
  forget_if_ended(seq.arrival);
}

// Delivers the last delta of one answer.
void EngineLoop::end(OpenRequest& request, SequenceId id, TokenDelta delta) {
  const Sequence& seq = scheduler_.sequence(id);
  delta.index = seq.sample_index;
  delta.stop_token = seq.stop_token;
  delta.score = seq.score;
  delta.num_cached_tokens = seq.num_cached_tokens;
  delta.num_preemptions = seq.num_preemptions;
  delta.scheduled_time = request.scheduled_time;
  delta.first_token_time = request.first_token_time;
  delta.finish_time = seconds_since(request.submit_time);
  if (request.queued) shared_->num_queued.fetch_sub(1);
  request.queued = false;
  request.has_answer |= delta.error.ok();
  if (is_failure(delta)) send_held(request.mailbox.get());
  send(request, std::move(delta));
  std::erase(request.open, id);
}

double EngineLoop::seconds_at(std::chrono::steady_clock::time_point time) const {
  return std::chrono::duration<double>(time - start_time_).count();
}

// A request-level batch answers when its last member has ended; who no longer waits for an answer
// is told at once.
void EngineLoop::send(const OpenRequest& request, TokenDelta delta) {
  if (request.prepare) {
    std::any prepared = request.prepare(delta);
    delta.prepared.push_back(std::move(prepared));
  }
  if (scheduler_.config().batching == Batching::kContinuous || is_failure(delta)) {
    request.mailbox->deliver(std::move(delta));
  } else {
    held_.push_back({request.mailbox, std::move(delta), request.submit_time});
  }
}

// Messages that waited, all or those of one request.
void EngineLoop::send_held(const Mailbox* only_to) {
  std::erase_if(held_, [&](HeldDelta& held) {
    if (only_to != nullptr && held.mailbox.get() != only_to) return false;
    if (held.delta.finish_reason != FinishReason::kNone) {
      held.delta.finish_time = seconds_since(held.submit_time);
    }
    held.mailbox->deliver(std::move(held.delta));
    return true;
  });
}

void EngineLoop::end_all_of(OpenRequest& request, FinishReason reason, const Status& error) {
  while (!request.open.empty()) abort(request, request.open.back(), reason, error);
}

void EngineLoop::abort(OpenRequest& request,
                       SequenceId id,
                       FinishReason reason,
                       const Status& error) {
  TokenDelta delta;
  delta.finish_reason = reason;
  delta.error = error;
  end(request, id, std::move(delta));
  scheduler_.cancel(id);
}

void EngineLoop::end_all(FinishReason reason, const Status& error) {
  shared_->inbox.close();
  drain_inbox();
  send_held();
  for (auto& [arrival, request] : open_) end_all_of(request, reason, error);
  open_.clear();
  arrival_of_.clear();
  publish_stats();
  events_.close();
}

void EngineLoop::publish_stats() {
  const BlockPool& pool = scheduler_.pool();
  const SchedulerStats& s = scheduler_.stats();
  EngineStats stats;
  stats.num_blocks = pool.num_blocks();
  stats.num_free_blocks = pool.num_free();
  stats.num_cached_blocks = pool.num_cached();
  stats.num_used_blocks = pool.num_used();
  stats.peak_used_blocks = s.peak_used_blocks;
  stats.num_running = scheduler_.num_running();
  stats.num_waiting = scheduler_.num_waiting();
  stats.num_steps = num_steps_;
  stats.num_preemptions = s.num_preemptions;
  stats.num_swapped_out = s.num_swapped_out;
  stats.num_swapped_in = s.num_swapped_in;
  stats.num_computed_tokens = s.num_computed_tokens;
  stats.num_copied_blocks = s.num_copied_blocks;
  stats.num_prompt_tokens = s.num_prompt_tokens;
  stats.num_generated_tokens = s.num_generated_tokens;
  stats.prefix_cache_queries = s.prefix_cache_queries;
  stats.prefix_cache_hits = s.prefix_cache_hits;
  stats.num_evictions = pool.num_evictions();
  stats.last_progress = std::chrono::steady_clock::now();
  shared_->stats.with([&](EngineStats& shared) { shared = stats; });
  events_.publish(num_steps_);
}

}  // namespace quire
