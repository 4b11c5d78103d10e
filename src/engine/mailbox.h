// One request's output on its way from the engine thread to its reader. It holds whatever has not
// been read, so that the engine never waits for a reader.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "base/monitor.h"
#include "engine/request.h"

namespace quire {

inline constexpr int kAllAnswers = -1;

class Mailbox {
 public:
  // Of a request with `num_answers` answers. `on_cancel` tells the engine which of them is to end,
  // or kAllAnswers; it may be called from any thread and after the engine is gone. `on_output`,
  // when not empty, is called by the engine thread each time something comes after the reader had
  // taken all there was: it wakes a reader that does not block.
  Mailbox(int num_answers,
          std::function<void(int)> on_cancel,
          std::function<void()> on_output = nullptr)
      : on_cancel_(std::move(on_cancel)),
        on_output_(std::move(on_output)),
        num_open_(num_answers),
        state_(num_answers) {}

  // Engine thread: adds to what has not been read of answer delta.index. After its finish reason
  // nothing may follow.
  void deliver(TokenDelta delta);

  // Reader. Everything that has arrived of one answer, as one delta; the answers take turns.
  std::optional<TokenDelta> next();
  std::optional<TokenDelta> next_for(std::chrono::milliseconds timeout);
  // The reader has seen the finish reason of every answer.
  bool finished() const { return num_open_ == 0; }
  void cancel();
  void cancel(int index);

 private:
  struct Answer {
    TokenDelta pending;
    bool has_pending = false;
  };
  struct State {
    explicit State(int num_answers) : answers(num_answers) {}
    std::vector<Answer> answers;
    int num_pending = 0;  // answers that have something
    int turn = 0;         // the answer to look at first
  };
  std::optional<TokenDelta> take(State& state);

  std::function<void(int)> on_cancel_;
  std::function<void()> on_output_;
  std::atomic<bool> cancelled_{false};
  std::atomic<int> num_open_;  // answers whose finish reason the reader has not seen
  Monitor<State> state_;
};

}  // namespace quire
