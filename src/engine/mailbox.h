// One request's output on its way from the engine thread to its reader. It holds whatever has not
// been read, so that the engine never waits for a reader.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>

#include "base/monitor.h"
#include "engine/request.h"

namespace quire {

class Mailbox {
 public:
  // `on_cancel` tells the engine; it may be called from any thread and after the engine is gone.
  explicit Mailbox(std::function<void()> on_cancel) : on_cancel_(std::move(on_cancel)) {}

  // Engine thread: adds to what has not been read. After a finish reason nothing may follow.
  void deliver(TokenDelta delta);

  // Reader. Everything that has arrived, as one delta.
  std::optional<TokenDelta> next();
  std::optional<TokenDelta> next_for(std::chrono::milliseconds timeout);
  bool finished() const { return finished_; }  // the reader has seen the finish reason
  void cancel();

 private:
  struct State {
    TokenDelta pending;
    bool has_pending = false;
  };
  std::optional<TokenDelta> take(State& state);

  std::function<void()> on_cancel_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> finished_{false};
  Monitor<State> state_;
};

}  // namespace quire
