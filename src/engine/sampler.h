// Logits -> tokens. In vLLM's order: allowed and banned tokens, min_tokens, logit bias; repetition,
// frequency and presence penalty; then greedy, or temperature, min-p, top-k, top-p and one draw.
//
// The draw for the token at a position is philox(seed, position) (of answer i > 0 of n, the seed is
// hash_combine(seed, i)) through the inverse distribution
// function over the kept tokens in order of their ids. So a token depends on its own logits, seed
// and position alone: not on batch mates, chunking or preemption.
//
// Kept sets: min-p keeps p >= min_p * max p; top-k keeps every token at least as likely as the k-th
// (ties stay); top-p keeps the shortest run of tokens, most likely first and lower ids first among
// equals, whose probability among those left reaches top_p.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/beam_search.h"
#include "engine/logit_math.h"
#include "engine/request.h"
#include "engine/scheduled_batch.h"
#include "engine/token_counts.h"

namespace quire {

// Buffers of one thread that samples.
struct SamplerScratch {
  std::vector<float> logits;                // [V] after bias and penalties
  std::vector<int32_t> kept;                // token ids
  std::vector<float> kept_logits, weights;  // of the kept tokens
  double total = 0;                         // of the weights
  SelectScratch select;
  std::vector<TokenLogit> top;
  std::vector<int32_t> bins;    // of the kept tokens, by probability
  std::vector<int32_t> border;  // places in `kept` between which top-p cuts
};

class Sampler {
 public:
  Sampler(int max_num_seqs, int vocab_size);
  // What a SamplerScratch grows to: seven arrays [V].
  static int64_t scratch_bytes(int vocab_size) { return int64_t{vocab_size} * 7 * 4; }

  // Takes a slot for a sequence that starts, or starts again after a preemption.
  void add(const NewSequence& sequence);

  // Draws the token that follows `position` tokens, and its logprobs if the sequence wants them.
  // kInvalidToken if the logits have no finite maximum. Different slots may be sampled by different
  // threads at once.
  int32_t sample(int slot,
                 int position,
                 std::span<const float> logits,
                 SamplerScratch* scratch,
                 LogprobList* logprobs);

  bool is_beam(int slot) const { return slots_[slot].sampling.is_beam_search(); }
  // The likeliest tokens after `position` tokens of a beam, as many as a search needs: log-softmax
  // of the logits, then allowed and banned tokens, min_tokens and logit bias, as transformers does.
  // None if the logits have no finite maximum or every token is banned.
  void beam_candidates(int slot,
                       int position,
                       std::span<const float> logits,
                       SamplerScratch* scratch,
                       std::vector<BeamCandidate>* candidates) const;

  bool wants_prompt_logprobs(int slot) const {
    return slots_[slot].sampling.prompt_logprobs.has_value();
  }
  // Of the given token, which follows the position of these logits.
  LogprobList prompt_logprobs(int slot,
                              int32_t token,
                              std::span<const float> logits,
                              SamplerScratch* scratch) const;

 private:
  struct Slot {
    SamplingParams sampling;
    std::vector<int32_t> end_tokens;  // sorted, each once
    int num_prompt = 0;
    bool has_penalties = false;
    TokenCounts counts;  // with penalties only
  };

  bool changes_logits(const Slot& slot, int num_output) const;
  void restrict_tokens(const Slot& slot, int num_output, std::span<float> logits) const;
  void penalise(const Slot& slot, std::span<float> logits) const;
  int vocab_size_;
  std::vector<Slot> slots_;
};

// The distribution that temperature, min-p, top-k and top-p leave of `logits`: scratch->kept, token
// ids in increasing order, scratch->weights, proportional to their probabilities (0: dropped), and
// scratch->total, their sum. Empty if the logits have no finite maximum.
void keep_tokens(std::span<const float> logits,
                 const SamplingParams& sampling,
                 SamplerScratch* scratch);

// [0] is `token`; then the `count` most likely.
LogprobList logprobs_of(std::span<const float> logits,
                        int32_t token,
                        int count,
                        SamplerScratch* scratch);

}  // namespace quire
