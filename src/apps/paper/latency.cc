// Figure latency-rate: the mean of end-to-end latency / output tokens against the request rate.
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/paper/figures.h"

namespace quire {

namespace {

// Where the curve is drawn, in parts of the sustained rate.
constexpr double kParts[] = {0.3, 0.6, 0.8, 0.95, 1.0, 1.1};

Json curve(const PaperContext& context,
           const PaperRun& run,
           const std::string& workload,
           double sustained) {
  Json points = Json::array();
  for (const double part : kParts) {
    const double rate = part * sustained;
    const PaperOutcome outcome =
        run_in_model_time(context.cost(), run, context.requests(workload, rate));
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
    std::printf("%s: requests/s at %.1f s per token\n", workload.c_str(), kLatencyLimit);
    const std::vector<PaperSystem> systems = paper_systems(context.cost());
    std::vector<double> rates(systems.size());
    std::vector<Json> curves(systems.size());
    for_each_parallel(context, static_cast<int>(systems.size()), [&](int i) {
      const PaperRun run{.system = systems[i]};
      rates[i] = sustained_rate(
          context.cost(), run, [&](double r) { return context.requests(workload, r); });
      curves[i] = curve(context, run, workload, rates[i]);
    });
    std::map<std::string, double> sustained;
    Json rows = Json::array();
    for (size_t i = 0; i < systems.size(); ++i) {
      sustained[systems[i].name] = rates[i];
      std::printf("  %-20s %8.2f\n", systems[i].label.c_str(), rates[i]);
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
