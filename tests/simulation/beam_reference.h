// Beam search written down as Hugging Face's transformers define it (version 5,
// GenerationMixin._beam_search), with whole vocabularies and fixed numbers of candidates, without
// blocks, steps or sharing: what the engine is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/beam_search.h"

namespace quire {

struct ReferenceAnswer {
  std::vector<int32_t> tokens;
  double score = 0;
  bool stopped = false;  // by an end token
};

// logprobs(tokens) gives that of every token of the vocabulary after the generated `tokens`.
inline std::vector<ReferenceAnswer> reference_beam_search(
    const BeamRules& rules,
    const std::function<std::vector<double>(const std::vector<int32_t>&)>& logprobs) {
  struct Candidate {
    ReferenceAnswer text;  // its score is the sum of the logprobs
    bool hits = false;
  };
  const size_t width = rules.width;
  const size_t to_keep = std::max<size_t>(2, 1 + rules.end_tokens.size()) * width;
  std::vector<ReferenceAnswer> running = {{}}, finished;
  for (int length = 1; length <= rules.max_output; ++length) {
    std::vector<Candidate> top;
    for (const ReferenceAnswer& beam : running) {
      const std::vector<double> next = logprobs(beam.tokens);
      for (int32_t token = 0; token < static_cast<int32_t>(next.size()); ++token) {
        if (std::isinf(next[token])) continue;
        Candidate c{beam};
        c.text.tokens.push_back(token);
        c.text.score += next[token];
        c.text.stopped =
            length >= rules.min_tokens && std::ranges::count(rules.end_tokens, token) > 0;
        c.hits = c.text.stopped || length == rules.max_output;
        top.push_back(std::move(c));
      }
    }
    std::ranges::stable_sort(
        top, [](const Candidate& a, const Candidate& b) { return a.text.score > b.text.score; });
    top.resize(std::min(top.size(), to_keep));
    running.clear();
    for (size_t i = 0; i < top.size(); ++i) {
      if (!top[i].hits) {
        if (running.size() < width) running.push_back(top[i].text);
      } else if (i < width) {
        finished.push_back(top[i].text);
        finished.back().score /= std::pow(length, rules.length_penalty);
      }
    }
    std::ranges::stable_sort(finished, [](const ReferenceAnswer& a, const ReferenceAnswer& b) {
      return a.score > b.score;
    });
    finished.resize(std::min(finished.size(), width));
    if (running.empty()) break;
    if (finished.size() < width) continue;
    if (rules.early_stopping == EarlyStopping::kTrue) break;
    const bool longest = rules.early_stopping == EarlyStopping::kNever && rules.length_penalty > 0;
    const double best =
        running[0].score / std::pow(longest ? rules.max_output : length, rules.length_penalty);
    if (!(best > finished.back().score)) break;
  }
  return finished;
}

}  // namespace quire
