// The figures of the PagedAttention paper (Kwon et al., SOSP 2023), in model-time or measured on a
// model: each runs its experiments, prints a table beside the paper's values and returns the same
// as JSON.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "apps/paper/comparison.h"
#include "apps/paper/cost.h"
#include "apps/paper/run.h"
#include "frontend/json.h"

namespace quire {

class PaperContext {
 public:
  PaperContext(const PaperPlatform& platform, const PaperParameters& parameters)
      : platform_(platform), parameters_(parameters) {}

  uint64_t seed = 1;
  double seconds = 600;   // of arrivals in model-time
  int num_requests = 96;  // of an experiment that is measured
  bool is_full = false;
  int num_threads = 1;              // that run experiments side by side, in model-time
  std::vector<PaperRequest> trace;  // instead of the drawn workloads, where it is not empty
  std::string trace_name;

  const PaperPlatform& platform() const { return platform_; }
  const PaperSizes& sizes() const { return platform_.sizes(); }
  bool is_simulated() const { return platform_.is_simulated(); }
  // {"sharegpt", "alpaca"}, or {"trace"}.
  std::vector<std::string> workloads() const;
  // Of "sharegpt", "alpaca", "translation", "trace", as long as the platform's sizes say.
  std::vector<PaperRequest> requests(const std::string& workload, double rate) const;
  // A rate at which a request always waits: measured, all are there at once.
  double overload(const std::string& workload) const;
  // "4 requests/s", or "all at once"; the number, or null.
  std::string rate_text(double rate) const;
  Json rate_value(double rate) const;
  // When an experiment at that rate ends: in model-time before its requests do.
  double end_of_overload() const;
  // Of the figures that go through them.
  std::vector<int> block_sizes() const;

  // Nothing more is run after a failure.
  PaperOutcome run(const PaperRun& run, std::span<const PaperRequest> requests) const;
  void fail(const Status& status) const;
  Status failure() const;
  bool has_failed() const { return !failure().ok(); }

  // Requests a second. In model-time: the highest rate at which the mean normalised latency stays
  // within kLatencyLimit, to 1 %. Measured: how fast requests end that are all there at once.
  // `requests_at` draws the requests of a rate.
  using RequestsAt = std::function<std::vector<PaperRequest>(double rate)>;
  double sustained_rate(const PaperRun& run, const RequestsAt& requests_at) const;
  std::string rate_name() const;  // what sustained_rate() is
  // body(0) .. body(count - 1), each once, on num_threads threads.
  void for_each(int count, const std::function<void(int)>& body) const;

 private:
  const PaperPlatform& platform_;
  const PaperParameters& parameters_;
  mutable std::mutex mutex_;
  mutable Status failure_;
};

// Either experiments on a platform, or a comparison of two ways on this machine.
struct PaperFigure {
  const char* name;
  const char* help;
  Json (*run)(const PaperContext&);
  Result<Json> (*compare)(const ComparisonSettings&) = nullptr;
};
const std::vector<PaperFigure>& paper_figures();

inline constexpr double kLatencyLimit = 0.5;  // seconds per token, at which rates are compared

Json memory_waste_figure(const PaperContext& context);
Json batch_size_figure(const PaperContext& context);
Json latency_rate_figure(const PaperContext& context);
Json sharing_figure(const PaperContext& context);
Json shared_prefix_figure(const PaperContext& context);
Json block_size_figure(const PaperContext& context);
Json preemption_figure(const PaperContext& context);
Json batching_figure(const PaperContext& context);
Result<Json> async_tokenize_figure(const ComparisonSettings& settings);
Result<Json> paged_overhead_figure(const ComparisonSettings& settings);
Result<Json> fusion_figure(const ComparisonSettings& settings);

}  // namespace quire
