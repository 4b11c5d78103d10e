#include "engine/mailbox.h"

#include <iterator>

#include "base/mutants.h"

namespace quire {

namespace {

template <class T>
void append(std::vector<T>& to, std::vector<T>& from) {
  if (to.empty()) {
    to = std::move(from);
  } else {
    to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  }
}

// What is known at the end only comes with the last delta.
void merge(TokenDelta& into, TokenDelta& delta) {
  append(into.tokens, delta.tokens);
  append(into.logprobs, delta.logprobs);
  append(into.prompt_logprobs, delta.prompt_logprobs);
  if (!mutant("engine_prepared_is_lost")) append(into.prepared, delta.prepared);
  delta.tokens = std::move(into.tokens);
  delta.logprobs = std::move(into.logprobs);
  delta.prompt_logprobs = std::move(into.prompt_logprobs);
  delta.prepared = std::move(into.prepared);
  into = std::move(delta);
}

}  // namespace

void Mailbox::deliver(TokenDelta delta) {
  bool is_first = false;
  state_.update([&](State& s) {
    is_first = s.num_pending == 0;
    Answer& answer = s.answers[delta.index];
    merge(answer.pending, delta);
    s.num_pending += !answer.has_pending;
    answer.has_pending = true;
  });
  if (is_first && on_output_) on_output_();
}

std::optional<TokenDelta> Mailbox::take(State& s) {
  if (s.num_pending == 0) return std::nullopt;
  const int count = static_cast<int>(s.answers.size());
  while (!s.answers[s.turn].has_pending) s.turn = (s.turn + 1) % count;
  Answer& answer = s.answers[s.turn];
  s.turn = (s.turn + 1) % count;
  --s.num_pending;
  answer.has_pending = false;
  TokenDelta delta = std::move(answer.pending);
  answer.pending = TokenDelta();
  num_open_ -= delta.finish_reason != FinishReason::kNone;
  return delta;
}

std::optional<TokenDelta> Mailbox::next() {
  if (finished()) return std::nullopt;
  return state_.wait([](const State& s) { return s.num_pending > 0; },
                     [this](State& s) { return take(s); });
}

std::optional<TokenDelta> Mailbox::next_for(std::chrono::milliseconds timeout) {
  if (finished()) return std::nullopt;
  return state_.wait_for(
      timeout,
      [](const State& s) { return s.num_pending > 0; },
      [this](State& s) { return take(s); });
}

void Mailbox::cancel() {
  if (!cancelled_.exchange(true) && !finished()) on_cancel_(kAllAnswers);
}

void Mailbox::cancel(int index) {
  if (!cancelled_ && !finished()) on_cancel_(index);
}

}  // namespace quire
