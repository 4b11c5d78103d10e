// How much one request may ask for, checked before anything is made for its answers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "frontend/llm.h"
#include "serve/api_request.h"

namespace quire {

inline constexpr int64_t kMaxAnswersOfRequest = 4096;  // of all its prompts
inline constexpr size_t kMaxStopStrings = 64, kMaxStopStringBytes = 4096;
// What every answer has a copy of.
inline constexpr int64_t kMaxStopBytesOfAnswers = 16 << 20, kMaxTokenEntriesOfAnswers = 4 << 20;
inline constexpr size_t kMaxCacheSaltBytes = 1024;

// `request` stands for each of `num_prompts`. Messages begin with the field's name.
Status check_size(const GenerateRequest& request, size_t num_prompts, const ApiContext& context);

}  // namespace quire
