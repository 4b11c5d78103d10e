#include "frontend/text_stream.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "frontend/utf8.h"

namespace quire {

Status TextStream::Options::validate(int n) const {
  if (n < 1) return invalid_argument("n must be >= 1, got " + std::to_string(n));
  if (best_of && *best_of < n) {
    return invalid_argument("best_of is " + std::to_string(*best_of) +
                            ", but must be at least n, which is " + std::to_string(n) +
                            ": raise best_of or lower n");
  }
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
  const int after_the_first = num_generated_tokens - num_answers;
  return seconds > 0 && after_the_first > 0 ? after_the_first / seconds : 0;
}

TextStream::TextStream(std::shared_ptr<PendingRequest> pending,
                       const Tokenizer& tokenizer,
                       const Options& options,
                       Plan plan,
                       bool is_prepared)
    : pending_(std::move(pending)),
      admission_(pending_->admitted.get_future()),
      answers_(std::make_shared<std::vector<AnswerText>>()),
      is_prepared_(is_prepared),
      num_open_(plan.given) {
  for (int i = 0; i < plan.computed; ++i) {
    answers_->emplace_back(Detokenizer(tokenizer, options.skip_special_tokens),
                           StopStrings(options.stop, options.include_stop_string),
                           plan.report_logprobs);
  }
  stats_.num_answers = plan.computed;
  if (plan.computed == plan.given) return;
  held_.resize(plan.computed);
  num_held_open_ = plan.computed;
}

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
  while (!finished()) {
    if (!ranked_.empty()) return take_ranked();
    if (Status status = wait_admitted(); !status.ok()) return fail(status);
    if (std::optional<TextDelta> delta = convert(stream_->value().next())) return delta;
  }
  return std::nullopt;
}

std::optional<TextDelta> TextStream::next_for(std::chrono::milliseconds timeout) {
  if (finished()) return std::nullopt;
  if (!ranked_.empty()) return take_ranked();
  if (!stream_ && admission_.wait_for(timeout) != std::future_status::ready) return std::nullopt;
  if (Status status = wait_admitted(); !status.ok()) return fail(status);
  return convert(stream_->value().next_for(timeout));
}

std::optional<TextDelta> TextStream::poll() {
  constexpr std::chrono::milliseconds kNow{0};
  while (!finished()) {
    if (!ranked_.empty()) return take_ranked();
    if (!stream_ && admission_.wait_for(kNow) != std::future_status::ready) return std::nullopt;
    if (Status status = wait_admitted(); !status.ok()) return fail(status);
    std::optional<TokenDelta> tokens = stream_->value().next_for(kNow);
    if (!tokens) return std::nullopt;
    // With best_of one delta may be held, and others may be there.
    if (std::optional<TextDelta> delta = convert(std::move(tokens))) return delta;
  }
  return std::nullopt;
}

TextDelta TextStream::fail(const Status& status) {
  num_open_ = 0;
  TextDelta delta;
  delta.finish_reason = FinishReason::kError;
  delta.error = status;
  return delta;
}

std::optional<TextDelta> TextStream::convert(std::optional<TokenDelta> in) {
  if (!in) return std::nullopt;
  if (in->finish_reason != FinishReason::kNone) note_end(*in);
  ConvertedDelta converted =
      is_prepared_ ? take_prepared(*in) : (*answers_)[in->index].convert(std::move(*in));
  TextDelta& out = converted.text;
  stats_.num_generated_tokens += static_cast<int>(out.tokens.size());
  const bool ended = out.finish_reason != FinishReason::kNone;
  if (!ended && converted.stop_matched) stream_->value().cancel(out.index);
  if (!held_.empty()) return hold(std::move(out));
  num_open_ -= ended;
  return std::move(out);
}

// The engine thread alone uses the answers then: it keeps the function until the request has ended.
std::function<std::any(TokenDelta&)> TextStream::preparer() const {
  return [answers = answers_](TokenDelta& delta) -> std::any {
    return (*answers)[delta.index].convert(std::move(delta));
  };
}

ConvertedDelta TextStream::take_prepared(TokenDelta& in) {
  ConvertedDelta all = std::any_cast<ConvertedDelta&&>(std::move(in.prepared.front()));
  for (size_t i = 1; i < in.prepared.size(); ++i) {
    all.append(std::any_cast<ConvertedDelta&&>(std::move(in.prepared[i])));
  }
  return all;
}

void TextStream::note_end(const TokenDelta& delta) {
  stats_.num_cached_tokens = std::max(stats_.num_cached_tokens, delta.num_cached_tokens);
  stats_.num_preemptions = std::max(stats_.num_preemptions, delta.num_preemptions);
  stats_.scheduled_seconds = delta.scheduled_time;
  stats_.first_token_seconds = delta.first_token_time;
  stats_.finish_seconds = std::max(stats_.finish_seconds, delta.finish_time);
}

// Keeps what an answer says until all have ended; then the best ones come out.
std::optional<TextDelta> TextStream::hold(TextDelta delta) {
  TextDelta& held = held_[delta.index];
  held.append(std::move(delta));
  if (held.finish_reason == FinishReason::kNone || --num_held_open_ > 0) return std::nullopt;
  std::ranges::stable_sort(held_, [](const TextDelta& a, const TextDelta& b) {
    return a.cumulative_logprob.value_or(0) > b.cumulative_logprob.value_or(0);
  });
  held_.resize(num_open_);
  for (int rank = 0; rank < num_open_; ++rank) held_[rank].index = rank;
  ranked_.assign(std::make_move_iterator(held_.rbegin()), std::make_move_iterator(held_.rend()));
  return take_ranked();
}

std::optional<TextDelta> TextStream::take_ranked() {
  TextDelta delta = std::move(ranked_.back());
  ranked_.pop_back();
  --num_open_;
  return delta;
}

}  // namespace quire
