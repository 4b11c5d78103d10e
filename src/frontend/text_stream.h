// The text side of one request: mailbox -> incremental detokenizer -> stop strings -> delta.
#pragma once

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "frontend/stop_strings.h"
#include "text/tokenizer.h"

namespace quire {

struct TextDelta {
  std::string text;             // may be empty while a character or a stop string is incomplete
  std::vector<TokenId> tokens;  // each generated token once
  std::vector<LogprobList> logprobs, prompt_logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;  // what ended it, for kStop
  std::optional<TokenId> stop_token;
  Status error;  // for kError
};

// Known when the stream has finished.
struct RequestStats {
  int num_prompt_tokens = 0, num_generated_tokens = 0, num_cached_tokens = 0, num_preemptions = 0;
  double scheduled_seconds = 0, first_token_seconds = 0, finish_seconds = 0;  // since submit

  double prefill_tokens_per_second() const;  // prompt tokens computed / (first token - scheduled)
  double decode_tokens_per_second() const;   // tokens after the first / (finish - first token)
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

    Status validate() const;  // an empty stop string, or one that is not UTF-8, can never be found
  };
  TextStream(std::shared_ptr<PendingRequest> pending, const Tokenizer& tokenizer, Options options);
  TextStream(TextStream&&) = default;
  TextStream& operator=(TextStream&&) = default;
  ~TextStream();

  // Waits until the prompt is tokenised and the engine has taken the request; says why it has not.
  Status wait_admitted();
  // Blocks until something happened; nullopt after the last delta.
  std::optional<TextDelta> next();
  // nullopt also when nothing happened within `timeout`; finished() tells which.
  std::optional<TextDelta> next_for(std::chrono::milliseconds timeout);
  bool finished() const { return finished_; }
  void cancel();

  const std::vector<TokenId>& prompt_tokens() const { return pending_->prompt; }
  const RequestStats& stats() const { return stats_; }

 private:
  std::optional<TextDelta> convert(std::optional<TokenDelta> tokens);
  TextDelta fail(const Status& status);

  std::shared_ptr<PendingRequest> pending_;
  std::future<Result<TokenStream>> admission_;
  std::optional<Result<TokenStream>> stream_;
  Detokenizer detokenizer_;
  StopStrings stop_;
  RequestStats stats_;
  bool finished_ = false;
};

}  // namespace quire
