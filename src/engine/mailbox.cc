#include "engine/mailbox.h"

#include <iterator>

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
  delta.tokens = std::move(into.tokens);
  delta.logprobs = std::move(into.logprobs);
  delta.prompt_logprobs = std::move(into.prompt_logprobs);
  into = std::move(delta);
}

}  // namespace

void Mailbox::deliver(TokenDelta delta) {
  state_.update([&](State& s) {
    merge(s.pending, delta);
    s.has_pending = true;
  });
}

std::optional<TokenDelta> Mailbox::take(State& s) {
  if (!s.has_pending) return std::nullopt;
  s.has_pending = false;
  TokenDelta delta = std::move(s.pending);
  s.pending = TokenDelta();
  return delta;
}

std::optional<TokenDelta> Mailbox::next() {
  if (finished_) return std::nullopt;
  std::optional<TokenDelta> delta = state_.wait([](const State& s) { return s.has_pending; },
                                                [this](State& s) { return take(s); });
  finished_ = delta->finish_reason != FinishReason::kNone;
  return delta;
}

std::optional<TokenDelta> Mailbox::next_for(std::chrono::milliseconds timeout) {
  if (finished_) return std::nullopt;
  std::optional<TokenDelta> delta = state_.wait_for(
      timeout, [](const State& s) { return s.has_pending; }, [this](State& s) { return take(s); });
  finished_ = delta && delta->finish_reason != FinishReason::kNone;
  return delta;
}

void Mailbox::cancel() {
  if (!cancelled_.exchange(true) && !finished_) on_cancel_();
}

}  // namespace quire
