// The text side of one request: mailbox -> incremental detokenizer -> stop strings -> delta.
//
// Of `best_of` answers the n most likely are given out, best first, when all have ended: by the sum
// of their tokens' log-probabilities, which every token lowers (vLLM's best_of).
#pragma once

#include <any>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "frontend/answer_text.h"

namespace quire {

// Known when the stream has finished. Of all answers, those that best_of drops included.
struct RequestStats {
  int num_answers = 1;
  int num_prompt_tokens = 0, num_generated_tokens = 0, num_cached_tokens = 0, num_preemptions = 0;
  double scheduled_seconds = 0, first_token_seconds = 0, finish_seconds = 0;  // since submit

  double prefill_tokens_per_second() const;  // prompt tokens computed / (first token - scheduled)
  double decode_tokens_per_second() const;   // tokens after the first ones / (finish - first token)
};

// What tokenizer thread and reader share until the engine has taken the request.
struct PendingRequest {
  std::promise<Result<TokenStream>> admitted;
  std::vector<TokenId> prompt;  // written before `admitted` is set
  std::atomic<bool> cancelled{false};
};

// One reader. The destructor cancels what is still running.
class TextStream {
 public:
  struct Options {
    std::vector<std::string> stop;
    bool include_stop_string = false;
    bool skip_special_tokens = true;
    std::optional<int> best_of = {};  // answers to choose the n from

    // For n answers. An empty stop string, or one that is not UTF-8, can never be found.
    Status validate(int n) const;
  };
  // What becomes of the answers that the engine computes.
  struct Plan {
    int computed = 1, given = 1;
    bool report_logprobs = true;
  };
  // `is_prepared`: the engine's messages come with their text, made by preparer().
  TextStream(std::shared_ptr<PendingRequest> pending,
             const Tokenizer& tokenizer,
             const Options& options,
             Plan plan,
             bool is_prepared = false);
  TextStream(TextStream&&) = default;
  TextStream& operator=(TextStream&&) = default;
  ~TextStream();

  // For Request::prepare: makes this stream's text, in the stream's place.
  std::function<std::any(TokenDelta&)> preparer() const;
  // Waits until the prompt is tokenised and the engine has taken the request; says why it has not.
  Status wait_admitted();
  // Blocks until something happened to one of the answers; nullopt after the last delta.
  std::optional<TextDelta> next();
  // nullopt also when nothing happened within `timeout`; finished() tells which.
  std::optional<TextDelta> next_for(std::chrono::milliseconds timeout);
  // What is there now, without waiting (GenerateRequest::on_output tells when to look); nullopt
  // when that is nothing.
  std::optional<TextDelta> poll();
  // The engine has taken the request, as far as next(), poll() or wait_admitted() have seen.
  bool admitted() const { return stream_ && stream_->ok(); }
  bool finished() const { return num_open_ == 0; }
  void cancel();

  const std::vector<TokenId>& prompt_tokens() const { return pending_->prompt; }
  const RequestStats& stats() const { return stats_; }

 private:
  std::optional<TextDelta> convert(std::optional<TokenDelta> tokens);
  static ConvertedDelta take_prepared(TokenDelta& in);
  std::optional<TextDelta> hold(TextDelta delta);
  std::optional<TextDelta> take_ranked();
  void note_end(const TokenDelta& delta);
  TextDelta fail(const Status& status);

  std::shared_ptr<PendingRequest> pending_;
  std::future<Result<TokenStream>> admission_;
  std::optional<Result<TokenStream>> stream_;
  std::shared_ptr<std::vector<AnswerText>> answers_;  // used by the reader or by preparer()
  bool is_prepared_;
  RequestStats stats_;
  int num_open_;                   // answers whose last delta has not been given out
  std::vector<TextDelta> held_;    // with best_of: each answer so far
  int num_held_open_ = 0;          // of them, those that go on
  std::vector<TextDelta> ranked_;  // those to give out, the best one last
};

}  // namespace quire
