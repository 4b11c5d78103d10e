// One answer of a request: its tokens become text, until a stop string ends it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "frontend/stop_strings.h"
#include "text/tokenizer.h"

namespace quire {

struct TextDelta {
  int index = 0;                // of the answer, in [0, n)
  std::string text;             // may be empty while a character or a stop string is incomplete
  std::vector<TokenId> tokens;  // each generated token once
  std::vector<LogprobList> logprobs, prompt_logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<std::string> stop_string;  // what ended it, for kStop
  std::optional<TokenId> stop_token;
  // Sum of the answer's log-probabilities, where they are known (with its finish reason).
  std::optional<double> cumulative_logprob;
  std::optional<double> score;  // of a beam search's answer
  Status error;                 // for kError

  // Adds what came after this delta of the same answer.
  void append(TextDelta later);
};

// What one message of the engine becomes.
struct ConvertedDelta {
  TextDelta text;
  bool stop_matched = false;  // a stop string ended the answer here

  void append(ConvertedDelta later);
};

class AnswerText {
 public:
  // `report_logprobs`: those that come are given out, not only summed.
  AnswerText(Detokenizer detokenizer, StopStrings stop, bool report_logprobs)
      : detokenizer_(std::move(detokenizer)),
        stop_(std::move(stop)),
        report_logprobs_(report_logprobs) {}

  // A stop string ends the answer in the middle of what the engine computes: the text ends at once,
  // the finish reason comes when the engine has ended it too.
  ConvertedDelta convert(TokenDelta in);

 private:
  TextDelta to_text(TokenDelta in);
  bool stop_matched() const { return stop_.matched().has_value(); }

  Detokenizer detokenizer_;
  StopStrings stop_;
  bool report_logprobs_;
  double cumulative_logprob_ = 0;
  bool has_logprobs_ = false;
};

}  // namespace quire
