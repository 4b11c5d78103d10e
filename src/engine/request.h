// What goes into the engine and what comes out: tokens, never strings.
#pragma once

#include <any>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace quire {

// When a beam search that has beam_width hypotheses stops looking for better ones; Hugging Face's
// early_stopping = True, False, "never".
enum class EarlyStopping : uint8_t { kTrue, kFalse, kNever };

// vLLM's names, meanings and limits (SamplingParams); validate() says which value is out of range.
struct SamplingParams {
  double temperature = 1.0;  // below 1e-5: greedy
  int top_k = 0;             // 0 or -1: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over prompt and output
  double presence_penalty = 0.0;    // over output
  double frequency_penalty = 0.0;   // over output
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  std::vector<int32_t> allowed_token_ids = {};  // empty: all
  std::vector<int32_t> banned_token_ids = {};
  int min_tokens = 0;
  int max_tokens = 16;  // 0: compute the prompt only (prompt_logprobs, a warm prefix cache)
  std::vector<int32_t> stop_token_ids = {};
  // The answer's true length, known in advance: for --kv-policy pow2 and oracle, which reserve it
  // and end the answer there. At most max_tokens, which stands for it when absent.
  std::optional<int> expected_output_tokens = {};
  bool ignore_eos = false;
  std::optional<uint64_t> seed = {};  // absent: the engine draws one and reports nothing
  int n = 1;                          // answers to one prompt, from one prefill; each draws alone
  // > 0: beam search (engine/beam_search.h) instead of drawing; the n best answers, best first.
  int beam_width = 0;
  double length_penalty = 1.0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  std::optional<int> logprobs = {};  // alternatives per generated token; 0 = the chosen token only
  std::optional<int> prompt_logprobs = {};  // the same for every prompt token but the first

  bool is_beam_search() const { return beam_width > 0; }
  // That run at once.
  int num_sequences() const { return is_beam_search() ? beam_width : n; }
  // `max_logprobs` < 0: no limit beyond the vocabulary.
  Status validate(int vocab_size, int max_logprobs = -1) const;
  bool operator==(const SamplingParams&) const = default;
};

struct TokenDelta;

struct Request {
  std::string id;
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  std::string cache_salt;  // prefix-cache hits only between equal salts
  // Sees the f32 logits [V] of every prompt position (row i predicts token i + 1) and of every
  // generated one, on the engine thread. With a tap no prompt position is served from the prefix
  // cache.
  std::function<void(int position, std::span<const float> logits)> logits_tap;
  // Sees each message of the stream on the engine thread, between two steps, before it is
  // delivered, and may move its tokens away; the reader finds what it returns in
  // TokenDelta::prepared. The next step waits for it.
  std::function<std::any(TokenDelta& delta)> prepare;
  // Called by the engine thread when there is output after the reader had taken all there was. It
  // must not block; it may be called until the stream has finished or been cancelled, and once
  // after.
  std::function<void()> on_output;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kAborted, kError };
const char* finish_reason_name(FinishReason reason);

struct TokenLogprob {
  int32_t token;
  float logprob;
  int rank;  // 1 = most likely
};
// [0] is the chosen (or given) token; then the alternatives, most likely first.
using LogprobList = std::vector<TokenLogprob>;

// One message of a stream.
struct TokenDelta {
  int index = 0;  // of the answer, in [0, n)
  // Newly generated, in order, each exactly once; the last one is the stop token when one ended it.
  std::vector<int32_t> tokens;
  std::vector<LogprobList> logprobs;         // one per token when asked for
  std::vector<LogprobList> prompt_logprobs;  // once, before or with the first token, when asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int32_t> stop_token;  // which token ended it
  std::optional<double> score;        // of a beam search's answer
  Status error;                       // for kError
  int num_cached_tokens = 0;          // prompt tokens that came from cached blocks (final message)
  int num_preemptions = 0;            // (final message)
  // Seconds since submit (final message): scheduled first, first token committed, finished.
  double scheduled_time = 0, first_token_time = 0, finish_time = 0;
  // What Request::prepare returned for each of the messages that have become this one, in order.
  std::vector<std::any> prepared;
};

}  // namespace quire
