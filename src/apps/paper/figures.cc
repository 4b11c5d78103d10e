#include "apps/paper/figures.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

namespace quire {

const std::vector<PaperFigure>& paper_figures() {
  static const std::vector<PaperFigure> figures = {
      {"memory-waste", "what the KV memory holds under each policy", memory_waste_figure},
      {"latency-rate", "normalised latency against request rate", latency_rate_figure},
      {"batch-size", "requests running at once", batch_size_figure},
      {"sharing", "blocks saved by parallel sampling and beam search", sharing_figure},
      {"shared-prefix", "throughput with a prefix that all prompts have", shared_prefix_figure},
      {"block-size", "request rate by block size", block_size_figure},
      {"preemption", "recomputing against swapping, by block size", preemption_figure}};
  return figures;
}

std::vector<std::string> PaperContext::workloads() const {
  if (!trace.empty()) return {"trace"};
  return {"sharegpt", "alpaca"};
}

std::vector<PaperRequest> PaperContext::requests(const std::string& workload, double rate) const {
  const int max_len = static_cast<int>(cost().max_model_len);
  if (workload == "trace") return scale_trace(trace, rate, seconds, max_len);
  const PaperWorkload& lengths = workload == "alpaca"        ? parameters.alpaca
                                 : workload == "translation" ? parameters.translation
                                                             : parameters.sharegpt;
  return draw_requests(lengths, rate, seconds, max_len, seed);
}

void for_each_parallel(const PaperContext& context,
                       int count,
                       const std::function<void(int)>& body) {
  std::atomic<int> next{0};
  const auto work = [&] {
    for (int i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::min(count, context.num_threads); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

// Doubles until the limit is passed, then halves the interval six times: 2^(1/64).
double sustained_rate(const CostModel& cost, const PaperRun& run, const RequestsAt& requests_at) {
  const auto is_sustained = [&](double rate) {
    const PaperOutcome outcome = run_in_model_time(cost, run, requests_at(rate));
    return outcome.normalised_latency <= kLatencyLimit;
  };
  double low = 0.0625, high = low;
  while (high < 4096 && is_sustained(high)) {
    low = high;
    high *= 2;
  }
  for (int i = 0; i < 6; ++i) {
    const double middle = std::sqrt(low * high);
    (is_sustained(middle) ? low : high) = middle;
  }
  return low;
}

}  // namespace quire
