#include "simulation/expectations.h"

#include <algorithm>

#include "simulation/fake_model_runner.h"

namespace quire {

namespace {

int most_output(const Workload& w, const SimRequest& r) {
  const int output = std::min(r.max_tokens, w.max_model_len - static_cast<int>(r.prompt.size()));
  return knows_output(w.kv_policy) ? std::min(output, r.expected_output_tokens.value_or(output))
                                   : output;
}

}  // namespace

std::vector<int32_t> expected_output(const Workload& w, const SimRequest& r, int index) {
  FakeHistory history(fake_salt_seed(r.salt));
  for (int32_t token : r.prompt) history.append(token);
  std::vector<int32_t> output;
  const int limit = most_output(w, r);
  while (static_cast<int>(output.size()) < limit) {
    const int32_t token = history.next_token(w.vocab_size, index);
    output.push_back(token);
    history.append(token);
    const bool stops =
        std::ranges::count(r.stop_token_ids, token) > 0 || (token == kEos && !r.ignore_eos);
    if (stops && static_cast<int>(output.size()) >= r.min_tokens) break;
  }
  return output;
}

std::vector<ReferenceAnswer> expected_beams(const Workload& w, const SimRequest& r) {
  const int room = w.max_model_len - static_cast<int>(r.prompt.size());
  BeamRules rules{r.beam_width, r.length_penalty, r.early_stopping};
  rules.max_output = std::min(r.max_tokens, room);
  rules.min_tokens = r.min_tokens;
  rules.end_tokens = r.stop_token_ids;
  if (!r.ignore_eos) rules.end_tokens.push_back(kEos);
  rules.end_tokens = sorted_once(rules.end_tokens);
  FakeHistory prompt(fake_salt_seed(r.salt));
  for (int32_t token : r.prompt) prompt.append(token);
  std::vector<ReferenceAnswer> answers =
      reference_beam_search(rules, [&](const std::vector<int32_t>& output) {
        FakeHistory history = prompt;
        for (int32_t token : output) history.append(token);
        return history.logprobs(w.vocab_size);
      });
  answers.resize(std::min<size_t>(answers.size(), r.n));
  return answers;
}

int num_sequences(const SimRequest& r) { return r.beam_width > 0 ? r.beam_width : r.n; }

bool can_ever_finish(const Workload& w, const SimRequest& r) {
  const int prompt = static_cast<int>(r.prompt.size());
  if (prompt == 0 || prompt + std::min(1, r.max_tokens) > w.max_model_len) return false;
  const int output = most_output(w, r);
  const int kv_tokens = prompt + std::max(0, output - 1);
  const int blocks = (kv_tokens + w.block_size - 1) / w.block_size;
  const int n = num_sequences(r);
  if (n > w.max_num_seqs) return false;
  if (w.kv_policy == KvPolicy::kOff && kv_tokens > w.max_num_batched_tokens) return false;
  if (r.beam_width > 0 && w.kv_policy != KvPolicy::kPaged) return false;
  if (is_contiguous(w.kv_policy)) {
    int tokens = kv_tokens;
    if (w.kv_policy == KvPolicy::kMax) tokens = w.max_model_len;
    if (w.kv_policy == KvPolicy::kOracle) tokens = prompt + output;
    if (w.kv_policy == KvPolicy::kPow2) {
      int rounded = 1;
      while (rounded < output) rounded *= 2;
      tokens = std::min(prompt + rounded, w.max_model_len);
    }
    int region = 1;
    while (region * w.block_size < tokens) region *= 2;
    const int prompt_blocks = (prompt + w.block_size - 1) / w.block_size;
    const bool grows = w.kv_policy == KvPolicy::kGrow && blocks > prompt_blocks;
    return n + grows <= w.num_blocks / region;
  }
  const bool shares = n > 1 && w.kv_policy == KvPolicy::kPaged;
  const int shared = shares ? prompt / w.block_size : 0;
  const bool fits_a_step = r.beam_width <= w.max_num_batched_tokens;
  return fits_a_step && shared + n * (blocks - shared) <= w.num_blocks;
}

}  // namespace quire
