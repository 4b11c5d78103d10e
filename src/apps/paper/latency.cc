// Figure latency-rate: the mean of end-to-end latency / output tokens against the request rate.
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
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

}  // namespace

Json latency_rate_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    std::printf("%s: %s\n", workload.c_str(), context.rate_name().c_str());
    const std::vector<PaperSystem> systems = paper_systems(context.sizes());
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
    if (context.has_failed()) return {};
    std::map<std::string, double> sustained;
    Json rows = Json::array();
    for (size_t i = 0; i < systems.size(); ++i) {
      sustained[systems[i].name] = rates[i];
      std::printf("  %-20s %8.2f |", systems[i].label.c_str(), rates[i]);
      for (const Json& point : curves[i]) {
        std::printf(" %.3f s/token at %.2f/s",
                    point["normalised_latency"].get<double>(),
                    point["rate"].get<double>());
      }
      std::printf("\n");
      rows.push_back({{"system", systems[i].name},
                      {"label", systems[i].label},
                      {"sustained_rate", rates[i]},
                      {"points", curves[i]}});
    }
    const auto over = [&](const char* name) { return sustained["paged"] / sustained[name]; };
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
                      {"rows", rows},
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
