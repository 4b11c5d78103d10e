#include "apps/paper/figures.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <limits>
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
      {"preemption", "recomputing against swapping, by block size", preemption_figure},
      {"batching", "continuous, dynamic and static batches with paged memory", batching_figure},
      {"async-tokenize",
       "string work beside the model or between its steps",
       nullptr,
       async_tokenize_figure},
      {"paged-overhead",
       "the attention kernel over blocks anywhere against one region a sequence",
       nullptr,
       paged_overhead_figure},
      {"fusion", "steps with fused ops and with separate ones", nullptr, fusion_figure}};
  return figures;
}

namespace {
constexpr double kAllAtOnce = 1e6;  // requests a second
}

std::vector<std::string> PaperContext::workloads() const {
  if (!trace.empty()) return {"trace"};
  if (!is_simulated() && !is_full) return {"sharegpt"};
  return {"sharegpt", "alpaca"};
}

std::vector<PaperRequest> PaperContext::requests(const std::string& workload, double rate) const {
  const int scale = sizes().length_scale, max_len = sizes().max_model_len * scale;
  const double duration = is_simulated() ? seconds : num_requests / rate;
  std::vector<PaperRequest> requests;
  if (workload == "trace") {
    requests = scale_trace(trace, rate, duration, max_len);
  } else {
    const PaperWorkload& lengths = workload == "alpaca"        ? parameters_.alpaca
                                   : workload == "translation" ? parameters_.translation
                                                               : parameters_.sharegpt;
    requests = draw_requests(lengths, rate, duration, max_len, seed);
  }
  for (PaperRequest& request : requests) {
    request.prompt = std::max(1, request.prompt / scale);
    request.output = std::max(1, request.output / scale);
  }
  return requests;
}

double PaperContext::overload(const std::string& workload) const {
  if (!is_simulated()) return kAllAtOnce;
  return workload == "alpaca" ? 80 : 4;
}

std::string PaperContext::rate_text(double rate) const {
  if (rate >= kAllAtOnce) return "all at once";
  char text[32];
  std::snprintf(text, sizeof text, "%.3g requests/s", rate);
  return text;
}

Json PaperContext::rate_value(double rate) const {
  return rate >= kAllAtOnce ? Json() : Json(rate);
}

double PaperContext::end_of_overload() const {
  return is_simulated() ? seconds : std::numeric_limits<double>::infinity();
}

std::vector<int> PaperContext::block_sizes() const {
  if (is_simulated()) return {1, 2, 4, 8, 16, 32, 64, 128, 256};
  return {1, 2, 4, 8, 16, 32, 64};
}

PaperOutcome PaperContext::run(const PaperRun& run, std::span<const PaperRequest> requests) const {
  if (has_failed()) return {};
  Result<PaperOutcome> outcome = run_experiment(platform_, run, requests);
  if (outcome.ok()) return *outcome;
  fail(outcome.status());
  return {};
}

void PaperContext::fail(const Status& status) const {
  std::lock_guard lock(mutex_);
  if (failure_.ok()) failure_ = status;
}

Status PaperContext::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

std::string PaperContext::rate_name() const {
  if (!is_simulated()) return "requests/s when all are there at once";
  char text[64];
  std::snprintf(text, sizeof text, "requests/s at %.1f s per token", kLatencyLimit);
  return text;
}

// In model-time: doubles until the limit is passed, then halves the interval six times: 2^(1/64).
double PaperContext::sustained_rate(const PaperRun& experiment,
                                    const RequestsAt& requests_at) const {
  if (!is_simulated()) {
    return run(experiment, requests_at(overload("sharegpt"))).requests_per_second;
  }
  const auto is_sustained = [&](double rate) {
    return run(experiment, requests_at(rate)).normalised_latency <= kLatencyLimit;
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

void PaperContext::for_each(int count, const std::function<void(int)>& body) const {
  std::atomic<int> next{0};
  const auto work = [&] {
    for (int i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::min(count, num_threads); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace quire
