#include "frontend/answer_text.h"

#include <iterator>
#include <utility>

namespace quire {

namespace {

template <class T>
void append_to(std::vector<T>& to, std::vector<T>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

void TextDelta::append(TextDelta later) {
  append_to(tokens, later.tokens);
  append_to(logprobs, later.logprobs);
  append_to(prompt_logprobs, later.prompt_logprobs);
  text += later.text;
  later.text = std::move(text);
  later.tokens = std::move(tokens);
  later.logprobs = std::move(logprobs);
  later.prompt_logprobs = std::move(prompt_logprobs);
  *this = std::move(later);
}

void ConvertedDelta::append(ConvertedDelta later) {
  text.append(std::move(later.text));
  stop_matched |= later.stop_matched;
}

ConvertedDelta AnswerText::convert(TokenDelta in) {
  const bool was_matched = stop_matched();
  TextDelta text = to_text(std::move(in));
  return {std::move(text), !was_matched && stop_matched()};
}

TextDelta AnswerText::to_text(TokenDelta in) {
  TextDelta out;
  out.index = in.index;
  out.prompt_logprobs = std::move(in.prompt_logprobs);
  out.finish_reason = in.finish_reason;
  out.error = in.error;
  out.stop_token = in.stop_token;
  out.score = in.score;
  for (size_t i = 0; i < in.tokens.size() && !stop_matched(); ++i) {
    const bool ends_here = in.stop_token && i + 1 == in.tokens.size();
    out.tokens.push_back(in.tokens[i]);
    if (i < in.logprobs.size()) {
      has_logprobs_ = true;
      cumulative_logprob_ += in.logprobs[i][0].logprob;
      if (report_logprobs_) out.logprobs.push_back(std::move(in.logprobs[i]));
    }
    // The token that ends a sequence is reported but is not text.
    if (!ends_here) out.text += stop_.push(detokenizer_.push(in.tokens[i]));
  }
  if (out.finish_reason == FinishReason::kNone) return out;
  if (!stop_matched()) {
    out.text += stop_.push(detokenizer_.finish());
    out.text += stop_.finish();
  }
  if (stop_matched()) {
    out.finish_reason = FinishReason::kStop;
    out.stop_string = stop_.matched();
    out.stop_token.reset();
    out.error = Status();
  }
  if (has_logprobs_) out.cumulative_logprob = cumulative_logprob_;
  return out;
}

}  // namespace quire
