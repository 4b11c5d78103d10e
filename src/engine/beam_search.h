// Beam search by Hugging Face's definition (transformers 5, GenerationMixin._beam_search), as a
// value that knows nothing of models, blocks or threads: it is told the likely next tokens of every
// running beam and answers which beams go on.
//
// With `width` W, of all continuations of all running beams, ordered by the sum of their tokens'
// log-probabilities:
// - those that do not end become the next running beams, the best W of them;
// - those that end (at an end token, or because they are max_output tokens long) become hypotheses,
//   but only if they are among the best W of all. Of hypotheses the best W are kept, ordered by
//   score = sum / length^length_penalty, where the end token counts.
// It is over when nothing can run on, or when there are W hypotheses and the early-stopping rule
// says that running beams will not improve them: kTrue at once; else when the best running beam's
// sum divided by length^length_penalty does not exceed the worst hypothesis' score, where length is
// that of the beam (kFalse) or, with a positive penalty, the longest possible (kNever).
//
// Equal sums are ordered by beam, then by token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace quire {

struct BeamCandidate {
  int32_t token;
  double logprob;
};

struct BeamRules {
  int width = 1;
  double length_penalty = 1;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  int max_output = 1;               // tokens
  int min_tokens = 0;               // an end token before them ends nothing
  std::vector<int32_t> end_tokens;  // sorted, each once
  bool operator==(const BeamRules&) const = default;
};

std::vector<int32_t> sorted_once(std::vector<int32_t> tokens);

// So many of the likeliest tokens of every beam are enough: W that go on, and all that end.
inline int num_beam_candidates(int width, int num_end_tokens) { return width + num_end_tokens; }

class BeamSearch {
 public:
  struct Beam {
    std::vector<int32_t> tokens;  // generated so far
    double sum = 0;               // of their log-probabilities
    bool operator==(const Beam&) const = default;
  };
  struct Hypothesis {
    std::vector<int32_t> tokens;
    double score = 0;
    FinishReason reason = FinishReason::kNone;  // kStop or kLength
    bool operator==(const Hypothesis&) const = default;
  };
  // A beam of the next step is beam `parent` of this one and a token.
  struct Choice {
    int32_t parent, token;
  };

  // Starts with one running beam without tokens.
  explicit BeamSearch(BeamRules rules);

  // candidates[b]: the num_beam_candidates() likeliest next tokens of running beam b, in any order.
  // Returns the next running beams, best first; none when the search is over.
  std::vector<Choice> advance(std::span<const std::span<const BeamCandidate>> candidates);

  bool is_over() const { return is_over_; }
  std::span<const Beam> beams() const { return beams_; }                  // best first
  std::span<const Hypothesis> hypotheses() const { return hypotheses_; }  // best first
  const BeamRules& rules() const { return rules_; }

  bool operator==(const BeamSearch&) const = default;
  uint64_t state_hash() const;

 private:
  void finish(const Beam& parent, int32_t token, double sum, bool is_end);
  bool may_improve() const;
  double normalised(double sum, int length) const;

  BeamRules rules_;
  std::vector<Beam> beams_;
  std::vector<Hypothesis> hypotheses_;
  int num_output_ = 0;  // tokens of every running beam
  bool is_over_ = false;
};

}  // namespace quire
