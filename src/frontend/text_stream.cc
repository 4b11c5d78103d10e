#include "frontend/text_stream.h"

#include <utility>

#include "frontend/utf8.h"

namespace quire {

Status TextStream::Options::validate() const {
  for (const std::string& text : stop) {
    if (text.empty()) {
      return invalid_argument("stop must not hold an empty text: leave it out");
    }
    QUIRE_RETURN_IF_ERROR(check_utf8(text, "stop"));
  }
  return {};
}

double RequestStats::prefill_tokens_per_second() const {
  const double seconds = first_token_seconds - scheduled_seconds;
  return seconds > 0 ? (num_prompt_tokens - num_cached_tokens) / seconds : 0;
}

double RequestStats::decode_tokens_per_second() const {
  const double seconds = finish_seconds - first_token_seconds;
  return seconds > 0 && num_generated_tokens > 1 ? (num_generated_tokens - 1) / seconds : 0;
}

TextStream::TextStream(std::shared_ptr<PendingRequest> pending,
                       const Tokenizer& tokenizer,
                       Options options)
    : pending_(std::move(pending)),
      admission_(pending_->admitted.get_future()),
      detokenizer_(tokenizer, options.skip_special_tokens),
      stop_(std::move(options.stop), options.include_stop_string) {}

TextStream::~TextStream() {
  if (pending_) pending_->cancelled = true;  // null after a move
}

void TextStream::cancel() {
  pending_->cancelled = true;
  if (stream_ && stream_->ok()) stream_->value().cancel();
}

Status TextStream::wait_admitted() {
  if (!stream_) {
    stream_ = admission_.get();
    stats_.num_prompt_tokens = static_cast<int>(pending_->prompt.size());
    if (pending_->cancelled && stream_->ok()) stream_->value().cancel();
  }
  return stream_->status();
}

std::optional<TextDelta> TextStream::next() {
  if (finished_) return std::nullopt;
  if (Status status = wait_admitted(); !status.ok()) return fail(status);
  return convert(stream_->value().next());
}

std::optional<TextDelta> TextStream::next_for(std::chrono::milliseconds timeout) {
  if (finished_) return std::nullopt;
  if (!stream_ && admission_.wait_for(timeout) != std::future_status::ready) return std::nullopt;
  if (Status status = wait_admitted(); !status.ok()) return fail(status);
  return convert(stream_->value().next_for(timeout));
}

TextDelta TextStream::fail(const Status& status) {
  finished_ = true;
  TextDelta delta;
  delta.finish_reason = FinishReason::kError;
  delta.error = status;
  return delta;
}

std::optional<TextDelta> TextStream::convert(std::optional<TokenDelta> in) {
  if (!in) {
    finished_ = finished_ || stream_->value().finished();
    return std::nullopt;
  }
  TextDelta out;
  out.prompt_logprobs = std::move(in->prompt_logprobs);
  out.finish_reason = in->finish_reason;
  out.error = in->error;
  out.stop_token = in->stop_token;
  for (size_t i = 0; i < in->tokens.size() && !stop_.matched(); ++i) {
    const bool ends_here = in->stop_token && i + 1 == in->tokens.size();
    out.tokens.push_back(in->tokens[i]);
    if (i < in->logprobs.size()) out.logprobs.push_back(std::move(in->logprobs[i]));
    // The token that ends a sequence is reported but is not text.
    if (!ends_here) out.text += stop_.push(detokenizer_.push(in->tokens[i]));
  }
  stats_.num_generated_tokens += static_cast<int>(out.tokens.size());
  if (!stop_.matched() && out.finish_reason != FinishReason::kNone) {
    out.text += stop_.push(detokenizer_.finish());
    out.text += stop_.finish();
  }
  if (stop_.matched()) {
    out.stop_string = stop_.matched();
    out.stop_token.reset();
    if (out.finish_reason == FinishReason::kNone || out.finish_reason == FinishReason::kLength) {
      stream_->value().cancel();
    }
    out.finish_reason = FinishReason::kStop;
  }
  if (out.finish_reason != FinishReason::kNone) {
    finished_ = true;
    stats_.num_cached_tokens = in->num_cached_tokens;
    stats_.num_preemptions = in->num_preemptions;
    stats_.scheduled_seconds = in->scheduled_time;
    stats_.first_token_seconds = in->first_token_time;
    stats_.finish_seconds = in->finish_time;
  }
  return out;
}

}  // namespace quire
