#include "engine/request.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace quire {

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAborted:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

namespace {

// printf's %g, so that a message shows the value as the user wrote it.
std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

Status out_of_range(const char* name, double value, const std::string& allowed) {
  return invalid_argument(std::string(name) + " must be " + allowed + ", got " + text(value));
}

bool within(double value, double low, double high) { return value >= low && value <= high; }

Status validate_distribution(const SamplingParams& p) {
  if (!(p.temperature >= 0) || !std::isfinite(p.temperature)) {
    return out_of_range("temperature", p.temperature, "a finite number >= 0 (0 = greedy)");
  }
  if (p.top_k < -1) return out_of_range("top_k", p.top_k, ">= 1, or 0 or -1 to turn it off");
  if (!(p.top_p > 0 && p.top_p <= 1)) return out_of_range("top_p", p.top_p, "in (0, 1]");
  if (!within(p.min_p, 0, 1)) return out_of_range("min_p", p.min_p, "in [0, 1]");
  if (!(p.repetition_penalty > 0) || !std::isfinite(p.repetition_penalty)) {
    return out_of_range("repetition_penalty", p.repetition_penalty, "> 0 (1 = none)");
  }
  if (!within(p.presence_penalty, -2, 2)) {
    return out_of_range("presence_penalty", p.presence_penalty, "in [-2, 2]");
  }
  if (!within(p.frequency_penalty, -2, 2)) {
    return out_of_range("frequency_penalty", p.frequency_penalty, "in [-2, 2]");
  }
  return Status();
}

Status validate_lengths(const SamplingParams& p) {
  if (p.n < 1) return out_of_range("n", p.n, ">= 1");
  if (p.n > 1 && p.max_tokens == 0) {
    return out_of_range("n", p.n, "1 with max_tokens 0, which gives no answer at all");
  }
  if (p.max_tokens < 0) return out_of_range("max_tokens", p.max_tokens, ">= 0");
  if (p.min_tokens < 0) return out_of_range("min_tokens", p.min_tokens, ">= 0");
  if (p.min_tokens > p.max_tokens) {
    return out_of_range(
        "min_tokens", p.min_tokens, "<= max_tokens, which is " + std::to_string(p.max_tokens));
  }
  const std::optional<int>& expected = p.expected_output_tokens;
  if (expected && (*expected < std::min(1, p.max_tokens) || *expected > p.max_tokens)) {
    return out_of_range("expected_output_tokens",
                        *expected,
                        "in [1, max_tokens], and max_tokens is " + std::to_string(p.max_tokens));
  }
  return Status();
}

Status unused_by_beams(const std::string& name,
                       const std::string& value,
                       const std::string& remedy) {
  return invalid_argument(name + " is " + value + ", which beam search has no use for: " + remedy +
                          ", or turn off beam_width");
}

// What would have no effect is refused.
Status validate_without_beams(const SamplingParams& p) {
  if (p.length_penalty != 1) {
    return invalid_argument("length_penalty is " + text(p.length_penalty) +
                            ", which only beam search uses: set beam_width as well");
  }
  if (p.early_stopping != EarlyStopping::kFalse) {
    return invalid_argument(
        "early_stopping is set, which only beam search uses: set beam_width as well");
  }
  return Status();
}

Status validate_beams(const SamplingParams& p) {
  if (p.beam_width < 0) return out_of_range("beam_width", p.beam_width, ">= 1, or 0 for none");
  if (!p.is_beam_search()) return validate_without_beams(p);
  if (p.n > p.beam_width) {
    return out_of_range("n", p.n, "<= beam_width, which is " + std::to_string(p.beam_width));
  }
  if (p.max_tokens == 0) {
    return out_of_range("beam_width", p.beam_width, "0 with max_tokens 0, which gives no answer");
  }
  if (!within(p.length_penalty, -10, 10)) {
    return out_of_range("length_penalty", p.length_penalty, "in [-10, 10] (1 = the mean)");
  }
  if (p.temperature != 0 && p.temperature != 1) {
    return unused_by_beams("temperature", text(p.temperature), "leave it at 0 or 1");
  }
  const struct {
    const char* name;
    double value, neutral;
  } unused[] = {{"top_k", std::max(0.0, double(p.top_k)), 0},
                {"top_p", p.top_p, 1},
                {"min_p", p.min_p, 0},
                {"repetition_penalty", p.repetition_penalty, 1},
                {"presence_penalty", p.presence_penalty, 0},
                {"frequency_penalty", p.frequency_penalty, 0}};
  for (const auto& [name, value, neutral] : unused) {
    if (value != neutral) return unused_by_beams(name, text(value), "leave it at " + text(neutral));
  }
  const std::string leave_out = "leave it out";
  if (p.seed) return unused_by_beams("seed", std::to_string(*p.seed), leave_out);
  if (p.logprobs) return unused_by_beams("logprobs", std::to_string(*p.logprobs), leave_out);
  if (p.prompt_logprobs) {
    return unused_by_beams("prompt_logprobs", std::to_string(*p.prompt_logprobs), leave_out);
  }
  return Status();
}

Status validate_logprobs(const char* name, std::optional<int> count, int vocab, int limit) {
  if (!count) return Status();
  const int most = limit < 0 ? vocab : std::min(limit, vocab);
  if (*count >= 0 && *count <= most) return Status();
  return out_of_range(name,
                      *count,
                      "in [0, " + std::to_string(most) + "]" +
                          (most < vocab ? " (--max-logprobs raises the limit)" : ""));
}

Status validate_tokens(const char* name, const std::vector<int32_t>& ids, int vocab_size) {
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size) {
      return out_of_range(
          name, id, "token ids in [0, " + std::to_string(vocab_size) + "), the vocabulary");
    }
  }
  return Status();
}

Status validate_bias(const SamplingParams& p, int vocab_size) {
  for (const auto& [id, bias] : p.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return out_of_range(
          "logit_bias", id, "for token ids in [0, " + std::to_string(vocab_size) + ")");
    }
    if (!within(bias, -100, 100)) return out_of_range("logit_bias", bias, "in [-100, 100]");
  }
  return Status();
}

}  // namespace

Status SamplingParams::validate(int vocab_size, int max_logprobs) const {
  QUIRE_RETURN_IF_ERROR(validate_distribution(*this));
  QUIRE_RETURN_IF_ERROR(validate_lengths(*this));
  QUIRE_RETURN_IF_ERROR(validate_beams(*this));
  QUIRE_RETURN_IF_ERROR(validate_logprobs("logprobs", logprobs, vocab_size, max_logprobs));
  QUIRE_RETURN_IF_ERROR(
      validate_logprobs("prompt_logprobs", prompt_logprobs, vocab_size, max_logprobs));
  QUIRE_RETURN_IF_ERROR(validate_bias(*this, vocab_size));
  QUIRE_RETURN_IF_ERROR(validate_tokens("allowed_token_ids", allowed_token_ids, vocab_size));
  QUIRE_RETURN_IF_ERROR(validate_tokens("banned_token_ids", banned_token_ids, vocab_size));
  return validate_tokens("stop_token_ids", stop_token_ids, vocab_size);
}

}  // namespace quire
