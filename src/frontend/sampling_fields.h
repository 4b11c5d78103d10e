// The sampling fields of a JSON object, with vLLM's names: a line of quire generate, a request to
// quire serve.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "frontend/json.h"
#include "frontend/text_stream.h"

namespace quire {

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

// The entry of `candidates` with the smallest edit distance to `word`, or "" when none is near
// or the word is longer than any that somebody mistyped.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace quire
