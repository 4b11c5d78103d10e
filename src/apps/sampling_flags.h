// Sampling flags, with vLLM's names, and the same fields in a JSON object (quire generate).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/command.h"
#include "engine/request.h"
#include "frontend/json.h"
#include "frontend/text_stream.h"

namespace quire {

// What the user said; absent fields keep the model's defaults.
struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<int> top_k, max_tokens, min_tokens, logprobs, n, best_of, beam_width;
  std::optional<double> length_penalty;
  std::optional<EarlyStopping> early_stopping;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids, allowed_token_ids, banned_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
  bool ignore_eos = false;
  bool keep_special_tokens = false;

  SamplingParams over(SamplingParams defaults) const;
  TextStream::Options output() const;
  // What can be known without the model: its vocabulary and its own defaults.
  Status validate() const;
};

// The same status, with flags where its message names fields: "top_p must be" -> "--top-p must be".
Status with_flag_names(const Status& status);

// Values out of range end the parsing, before any model is loaded.
void add_sampling_flags(CommandLine line, SamplingFlags& flags);
// --n, --best-of and beam search, where several answers to one prompt make sense.
void add_answer_count_flags(CommandLine line, SamplingFlags& flags);

// Beam search draws nothing: a model's own temperature and the like do not hold for it.
void forget_drawing(SamplingParams& params);
// "true", "false" or "never".
std::optional<EarlyStopping> parse_early_stopping(const std::string& text);

// Applies the sampling fields of `object` to params and output. An unknown field is an error that
// names it and the nearest known one; `known_elsewhere` lists fields that the caller reads itself.
Status apply_sampling_fields(const Json& object,
                             const std::vector<std::string>& known_elsewhere,
                             SamplingParams& params,
                             TextStream::Options& output);

inline constexpr const char* kSeedRange = "an integer in [0, 18446744073709551615]";
// A whole decimal number of at most 32 bits.
std::optional<int32_t> parse_token_id(const std::string& text);

// The entry of `candidates` with the smallest edit distance to `word`, or "" when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace quire
