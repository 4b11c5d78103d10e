// Requests of the paper's experiments: lengths and times of arrival. No text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/paper/cost.h"
#include "base/status.h"

namespace quire {

struct PaperRequest {
  double arrival = 0;          // seconds
  int prompt = 0, output = 0;  // tokens
  int n = 1;                   // answers
  int beam_width = 0;          // > 0: one answer, by beam search
  int shared_prefix = 0;       // leading tokens of the prompt that all requests have
};

// Lengths drawn from the workload, Poisson arrivals at `rate` a second for `seconds`. The same seed
// gives the same lengths at every rate. prompt + output <= max_len.
std::vector<PaperRequest> draw_requests(
    const PaperWorkload& workload, double rate, double seconds, int max_len, uint64_t seed);

// An Azure LLM inference trace of 2023: CSV of TIMESTAMP,ContextTokens,GeneratedTokens. Arrivals
// count from the first request. The error names the line.
Result<std::vector<PaperRequest>> parse_azure_trace(std::string_view csv, const std::string& name);

// The trace's first `seconds` after its arrivals are stretched to `rate` a second, the first at 0,
// without requests longer than max_len and those that generate nothing.
std::vector<PaperRequest> scale_trace(const std::vector<PaperRequest>& trace,
                                      double rate,
                                      double seconds,
                                      int max_len);

}  // namespace quire
