// Figures latency-rate and batching: the mean of end-to-end latency / output tokens against the
// request rate.
#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/paper/figures.h"

namespace quire {

namespace {

// Where the curve of a system is drawn, in parts of its sustained rate in model-time, of paging's
// where it is measured.
std::vector<double> parts(const PaperContext& context) {
  if (context.is_simulated()) return {0.3, 0.6, 0.8, 0.95, 1.0, 1.1};
  return {0.4, 0.7, 1.0};
}

Json curve(const PaperContext& context,
           const PaperRun& run,
           const std::string& workload,
           double sustained) {
  Json points = Json::array();
  for (const double part : parts(context)) {
    const double rate = part * sustained;
    const PaperOutcome outcome = context.run(run, context.requests(workload, rate));
    points.push_back({{"rate", rate},
                      {"normalised_latency", outcome.normalised_latency},
                      {"preemptions", outcome.stats.num_preemptions}});
  }
  return points;
}

// Of several systems on one workload.
struct LatencyPanel {
  std::map<std::string, double> sustained;  // requests/s
  Json rows = Json::array();

  double over(const char* fast, const char* slow) const {
    return sustained.at(fast) / sustained.at(slow);
  }
};

// The last system is the reference: measured, the others' curves are drawn at its rates.
LatencyPanel latency_panel(const PaperContext& context,
                           const std::string& workload,
                           const std::vector<PaperSystem>& systems) {
  std::printf("%s: %s\n", workload.c_str(), context.rate_name().c_str());
  std::vector<double> rates(systems.size());
  std::vector<Json> curves(systems.size());
  const int count = static_cast<int>(systems.size());
  context.for_each(count, [&](int i) {
    rates[i] = context.sustained_rate({.system = systems[i]},
                                      [&](double r) { return context.requests(workload, r); });
  });
  context.for_each(count, [&](int i) {
    const double rate = context.is_simulated() ? rates[i] : rates.back();
    curves[i] = curve(context, {.system = systems[i]}, workload, rate);
  });
  LatencyPanel panel;
  if (context.has_failed()) return panel;
  for (size_t i = 0; i < systems.size(); ++i) {
    panel.sustained[systems[i].name] = rates[i];
    std::printf("  %-20s %8.2f |", systems[i].label.c_str(), rates[i]);
    for (const Json& point : curves[i]) {
      std::printf(" %.3f s/token at %.2f/s",
                  point["normalised_latency"].get<double>(),
                  point["rate"].get<double>());
    }
    std::printf("\n");
    panel.rows.push_back({{"system", systems[i].name},
                          {"label", systems[i].label},
                          {"sustained_rate", rates[i]},
                          {"points", curves[i]}});
  }
  return panel;
}

// Batches of a size that operators choose, and of as many requests of mean length as memory holds.
std::vector<PaperSystem> batching_systems(const PaperContext& context,
                                          const std::string& workload) {
  constexpr int kChosen = 8;
  const double window = context.is_simulated() ? 1 : 0.1;
  const std::vector<PaperRequest> requests = context.requests(workload, context.overload(workload));
  int64_t tokens = 1;
  for (const PaperRequest& request : requests) tokens += request.prompt + request.output;
  const int64_t that_fit =
      context.sizes().kv_tokens * static_cast<int64_t>(requests.size()) / tokens;
  const int most = context.sizes().max_num_seqs;
  const int sizes[] = {std::min(kChosen, most),
                       static_cast<int>(std::clamp<int64_t>(that_fit, 1, most))};
  std::vector<PaperSystem> systems;
  for (int i = 0; i < 2; ++i) {
    const std::string suffix = i == 0 ? "-small" : "-full";
    const std::string of = " of " + std::to_string(sizes[i]);
    systems.push_back(
        {"static" + suffix, "static" + of, KvPolicy::kPaged, Batching::kStatic, sizes[i]});
    systems.push_back({"dynamic" + suffix,
                       "dynamic" + of,
                       KvPolicy::kPaged,
                       Batching::kDynamic,
                       sizes[i],
                       window});
  }
  systems.push_back({"continuous", "continuous"});
  return systems;
}

}  // namespace

// Orca's idea alone (Yu et al., OSDI 2022): requests join and leave at every step, or in batches
// that run until their last member ends; memory is paged in all of them.
Json batching_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    const std::vector<PaperSystem> systems = batching_systems(context, workload);
    const LatencyPanel panel = latency_panel(context, workload, systems);
    if (context.has_failed()) return {};
    Json over = Json::object();
    std::printf("  continuous over");
    for (const PaperSystem& system : systems) {
      if (system.batching == Batching::kContinuous) continue;
      over[system.name] = panel.over("continuous", system.name.c_str());
      std::printf(" %s %.2f;", system.label.c_str(), over[system.name].get<double>());
    }
    std::printf("\n");
    panels.push_back({{"workload", workload},
                      {"latency_limit", kLatencyLimit},
                      {"batch_sizes", {systems[0].batch_size, systems[2].batch_size}},
                      {"window_seconds", systems[1].batch_window},
                      {"rows", panel.rows},
                      {"continuous_over", over}});
  }
  return {{"panels", panels}};
}

Json latency_rate_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    const LatencyPanel panel = latency_panel(context, workload, paper_systems(context.sizes()));
    if (context.has_failed()) return {};
    const auto over = [&](const char* name) { return panel.over("paged", name); };
    std::printf(
        "  paged over Orca (Oracle) %.2f, (Pow2) %.2f, (Max) %.2f, FasterTransformer %.1f, Hugging "
        "Face %.1f\n",
        over("orca-oracle"),
        over("orca-pow2"),
        over("orca-max"),
        over("faster-transformer"),
        over("hugging-face"));
    panels.push_back({{"workload", workload},
                      {"latency_limit", kLatencyLimit},
                      {"rows", panel.rows},
                      {"paged_over",
                       {{"orca-oracle", over("orca-oracle")},
                        {"orca-pow2", over("orca-pow2")},
                        {"orca-max", over("orca-max")},
                        {"faster-transformer", over("faster-transformer")},
                        {"hugging-face", over("hugging-face")}}}});
  }
  std::printf(
      "paper, ShareGPT over three models: oracle 1.7-2.7, max 2.7-8, FasterTransformer up "
      "to 22\n");
  return {
      {"panels", panels},
      {"paper",
       {{"orca-oracle", {1.7, 2.7}}, {"orca-max", {2.7, 8.0}}, {"faster-transformer", {22.0}}}}};
}

}  // namespace quire
