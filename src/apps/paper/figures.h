// The figures of the PagedAttention paper (Kwon et al., SOSP 2023) in model-time: each runs its
// experiments, prints a table beside the paper's values and returns the same as JSON.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/paper/run.h"
#include "frontend/json.h"

namespace quire {

struct PaperContext {
  PaperParameters parameters;
  uint64_t seed = 1;
  double seconds = 600;  // of arrivals
  int num_threads = 1;
  std::vector<PaperRequest> trace;  // instead of the drawn workloads, where it is not empty
  std::string trace_name;

  const CostModel& cost() const { return parameters.cost; }
  // Of "sharegpt", "alpaca", "translation", "trace".
  std::vector<PaperRequest> requests(const std::string& workload, double rate) const;
  // {"sharegpt", "alpaca"}, or {"trace"}.
  std::vector<std::string> workloads() const;
};

struct PaperFigure {
  const char* name;
  const char* help;
  Json (*run)(const PaperContext&);
};
const std::vector<PaperFigure>& paper_figures();

// What several figures need.
inline constexpr double kLatencyLimit = 0.5;  // seconds per token, at which rates are compared
// The highest rate at which the mean normalised latency stays within kLatencyLimit, to 1 %.
// `requests_at` draws the requests of a rate.
using RequestsAt = std::function<std::vector<PaperRequest>(double rate)>;
double sustained_rate(const CostModel& cost, const PaperRun& run, const RequestsAt& requests_at);
// body(0) .. body(count - 1), each once, on the context's threads.
void for_each_parallel(const PaperContext& context,
                       int count,
                       const std::function<void(int)>& body);

Json memory_waste_figure(const PaperContext& context);
Json batch_size_figure(const PaperContext& context);
Json latency_rate_figure(const PaperContext& context);
Json sharing_figure(const PaperContext& context);
Json shared_prefix_figure(const PaperContext& context);
Json block_size_figure(const PaperContext& context);
Json preemption_figure(const PaperContext& context);

}  // namespace quire
