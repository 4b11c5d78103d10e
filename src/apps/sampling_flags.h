// Sampling flags, with vLLM's names.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/command.h"
#include "engine/request.h"
#include "frontend/sampling_fields.h"
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
// The value of --seed.
Status parse_seed(const std::string& text, std::optional<uint64_t>& out);

// Values out of range end the parsing, before any model is loaded.
void add_sampling_flags(CommandLine line, SamplingFlags& flags);
// --n, --best-of and beam search, where several answers to one prompt make sense.
void add_answer_count_flags(CommandLine line, SamplingFlags& flags);

}  // namespace quire
