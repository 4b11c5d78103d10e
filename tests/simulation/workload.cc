#include "simulation/workload.h"

#include <algorithm>
#include <functional>
#include <sstream>
#include <utility>

#include "base/hash.h"

namespace quire {

namespace {

// A small generator of our own: the same workloads with every standard library.
struct Random {
  uint64_t state;
  int below(int n) {
    state = mix64(state + 0x9e3779b97f4a7c15u);
    return static_cast<int>(state % static_cast<uint64_t>(n));
  }
  int between(int low, int high) { return low + below(high - low + 1); }
  bool one_in(int n) { return below(n) == 0; }
};

std::vector<int32_t> random_prompt(Random& random, const Workload& w) {
  const int pool_tokens = w.num_blocks * w.block_size;
  int length = random.between(1, std::max(1, pool_tokens / 3));
  if (random.one_in(6)) length = random.between(0, pool_tokens + 2);  // empty, and too long ones
  std::vector<int32_t> prompt(length);
  const int family = random.below(2);  // prompts of a family share a prefix
  const int shared = random.one_in(2) ? length : random.between(0, length);
  for (int i = 0; i < length; ++i) {
    prompt[i] = i < shared ? (family * 7 + i * i) % w.vocab_size : random.below(w.vocab_size);
  }
  return prompt;
}

void make_beam_search(Random& random, const Workload& w, SimRequest& r) {
  constexpr double kPenalties[] = {1, 0, 0.6, 1.4, -0.5};
  constexpr EarlyStopping kRules[] = {
      EarlyStopping::kFalse, EarlyStopping::kTrue, EarlyStopping::kNever};
  r.beam_width = random.between(1, std::min(random.one_in(8) ? 7 : 4, w.max_num_seqs + 1));
  r.n = random.between(1, r.beam_width);
  r.length_penalty = kPenalties[random.below(5)];
  r.early_stopping = kRules[random.below(3)];
  r.ignore_eos = random.one_in(3);
  r.wants_all_rows = false;
  if (random.one_in(8)) return;  // else so that it may fit into the pool
  const int tokens_of_one = std::max(2, w.num_blocks / r.beam_width * w.block_size);
  const int length = random.between(1, tokens_of_one - 1);
  if (static_cast<int>(r.prompt.size()) > length) r.prompt.resize(length);
  r.max_tokens = random.between(1, tokens_of_one);
  r.min_tokens = std::min(r.min_tokens, r.max_tokens);
}

SimRequest random_request(Random& random, const Workload& w) {
  SimRequest r;
  r.arrival_step = random.one_in(2) ? 0 : random.below(60);
  r.prompt = random_prompt(random, w);
  if (random.one_in(3)) r.salt = std::string(1, random.one_in(2) ? 'a' : 'b');
  r.max_tokens = random.one_in(4) ? random.below(2) : random.below(40);
  if (random.one_in(8)) r.max_tokens = 1000;
  if (random.one_in(4)) r.min_tokens = random.below(r.max_tokens + 1);
  if (random.one_in(5)) r.stop_token_ids.push_back(random.below(w.vocab_size));
  if (random.one_in(4) && r.max_tokens > 0 && w.max_num_seqs > 1) {
    r.n = random.between(2, std::min(4, w.max_num_seqs));
  }
  r.ignore_eos = !random.one_in(4);
  r.wants_all_rows = random.one_in(5);
  if (random.one_in(4) && r.max_tokens > 0) make_beam_search(random, w, r);
  if (random.one_in(5)) {
    r.cancel_step = r.arrival_step + random.below(20);
    r.cancel_between = random.one_in(2);
  }
  return r;
}

}  // namespace

Workload random_workload(uint64_t seed) {
  Random random{seed};
  Workload w;
  w.seed = seed;
  w.num_blocks = random.one_in(3) ? random.between(2, 4) : random.between(2, 16);
  w.block_size = random.one_in(2) ? random.between(1, 4) : random.between(1, 16);
  w.max_num_seqs = random.between(1, 6);
  w.max_num_batched_tokens = random.between(1, random.one_in(3) ? 6 : 40);
  w.long_prefill_token_threshold = random.one_in(3) ? random.between(1, 5) : 0;
  w.extra_rows = random.between(1, 6);
  w.max_model_len = !random.one_in(3) ? w.num_blocks * w.block_size : random.between(2, 80);
  w.vocab_size = random.between(2, 20);
  w.enable_prefix_caching = !random.one_in(4);
  w.depth = random.between(1, 2);
  if (random.one_in(2)) w.num_host_blocks = random.between(1, 2 * w.num_blocks);
  const int num_requests = random.between(1, 14);
  for (int i = 0; i < num_requests; ++i) w.requests.push_back(random_request(random, w));
  return w;
}

Workload with_policy(Workload w, KvPolicy policy) {
  Random random{w.seed ^ 0xb0d1};
  w.kv_policy = policy;
  w.batching = static_cast<Batching>(random.below(3));
  w.batch_size = random.between(1, w.max_num_seqs);
  w.batch_window = random.below(6);
  if (policy != KvPolicy::kPaged) {
    w.enable_prefix_caching = false;
    w.num_host_blocks = 0;
    if (random.one_in(2)) w.num_blocks = random.between(w.num_blocks, 4 * w.num_blocks);
  }
  if (policy == KvPolicy::kOff) {
    w.long_prefill_token_threshold = 0;
    w.max_num_batched_tokens = random.between(1, 80);
  }
  for (SimRequest& r : w.requests) {
    if (policy != KvPolicy::kPaged && !random.one_in(8)) r.beam_width = 0;  // beams are refused
    if (r.max_tokens > 0 && random.one_in(2)) {
      r.expected_output_tokens = random.between(1, r.max_tokens);
    }
  }
  return w;
}

// Tries every simplification over and over until none keeps the failure.
Workload shrink(Workload w) {
  const auto still_fails = [](const Workload& candidate) {
    return !run_workload(candidate).empty();
  };
  const std::vector<std::function<bool(SimRequest&)>> simplifications = {
      [](SimRequest& r) { return std::exchange(r.arrival_step, 0) != 0; },
      [](SimRequest& r) { return std::exchange(r.cancel_step, -1) != -1; },
      [](SimRequest& r) { return !std::exchange(r.salt, "").empty(); },
      [](SimRequest& r) { return std::exchange(r.wants_all_rows, false); },
      [](SimRequest& r) { return std::exchange(r.min_tokens, 0) != 0; },
      [](SimRequest& r) { return r.n > 1 ? (--r.n, true) : false; },
      [](SimRequest& r) { return r.beam_width > r.n ? (--r.beam_width, true) : false; },
      [](SimRequest& r) { return std::exchange(r.length_penalty, 1) != 1; },
      [](SimRequest& r) {
        return std::exchange(r.early_stopping, EarlyStopping::kFalse) != EarlyStopping::kFalse;
      },
      [](SimRequest& r) {
        return std::exchange(r.expected_output_tokens, std::nullopt).has_value();
      },
      [](SimRequest& r) {
        const bool any = !r.stop_token_ids.empty();
        r.stop_token_ids.clear();
        return any;
      },
      [](SimRequest& r) { return r.prompt.size() > 1 ? (r.prompt.pop_back(), true) : false; },
      [](SimRequest& r) {
        const int least = std::max(
            {r.min_tokens, r.n + r.beam_width > 1 ? 1 : 0, r.expected_output_tokens.value_or(0)});
        return r.max_tokens > least ? (--r.max_tokens, true) : false;
      },
  };
  bool progress = true;
  while (progress) {
    progress = false;
    for (size_t i = 0; i < w.requests.size(); ++i) {
      Workload candidate = w;
      candidate.requests.erase(candidate.requests.begin() + i);
      if (still_fails(candidate)) w = candidate, progress = true, --i;
    }
    for (size_t i = 0; i < w.requests.size(); ++i) {
      for (const auto& simplify : simplifications) {
        Workload candidate = w;
        if (simplify(candidate.requests[i]) && still_fails(candidate))
          w = candidate, progress = true;
      }
    }
    for (int* value : {&w.depth,
                       &w.max_num_seqs,
                       &w.num_blocks,
                       &w.block_size,
                       &w.num_host_blocks,
                       &w.batch_size,
                       &w.batch_window}) {
      const int old = *value;
      if (old <= 1) continue;
      --*value;
      if (still_fails(w))
        progress = true;
      else
        *value = old;
    }
  }
  return w;
}

std::string describe(const Workload& w) {
  std::ostringstream out;
  out << "seed " << w.seed << ": " << w.num_blocks << " blocks of " << w.block_size
      << ", max_num_seqs " << w.max_num_seqs << ", max_num_batched_tokens "
      << w.max_num_batched_tokens << ", long_prefill_token_threshold "
      << w.long_prefill_token_threshold << ", extra_rows " << w.extra_rows << ", max_model_len "
      << w.max_model_len << ", vocab " << w.vocab_size << ", prefix caching "
      << w.enable_prefix_caching << ", host blocks " << w.num_host_blocks << ", depth " << w.depth
      << ", kv policy " << name_of(w.kv_policy) << ", batching " << name_of(w.batching) << " of "
      << w.batch_size << " within " << w.batch_window << "\n";
  for (const SimRequest& r : w.requests) {
    out << "  arrives " << r.arrival_step << ", prompt {";
    for (size_t i = 0; i < r.prompt.size(); ++i) out << (i ? "," : "") << r.prompt[i];
    out << "}, salt '" << r.salt << "', n " << r.n << ", beam_width " << r.beam_width
        << ", length_penalty " << r.length_penalty << ", early_stopping "
        << static_cast<int>(r.early_stopping) << ", max_tokens " << r.max_tokens << ", min_tokens "
        << r.min_tokens << ", expected " << r.expected_output_tokens.value_or(-1) << ", stop {";
    for (size_t i = 0; i < r.stop_token_ids.size(); ++i)
      out << (i ? "," : "") << r.stop_token_ids[i];
    out << "}, ignore_eos " << r.ignore_eos << ", all rows " << r.wants_all_rows << ", cancel "
        << r.cancel_step << (r.cancel_between ? " in flight" : "") << "\n";
  }
  return out.str();
}

}  // namespace quire
