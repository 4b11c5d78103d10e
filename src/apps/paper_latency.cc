// Figure latency-rate: the mean of end-to-end latency / output tokens against the request rate.
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/paper_figures.h"

namespace quire {

namespace {

// Where the curve is drawn, in parts of the sustained rate.
constexpr double kParts[] = {0.2, 0.4, 0.6, 0.75, 0.9, 1.0, 1.05, 1.15};

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
    std::map<std::string, double> sustained;
    Json rows = Json::array();
    for (const PaperSystem& system : paper_systems(context.cost())) {
      const PaperRun run{.system = system};
      const double rate = sustained_rate(
          context.cost(), run, [&](double r) { return context.requests(workload, r); });
      sustained[system.name] = rate;
      std::printf("  %-20s %8.2f\n", system.label.c_str(), rate);
      std::fflush(stdout);
      rows.push_back({{"system", system.name},
                      {"label", system.label},
                      {"sustained_rate", rate},
                      {"points", curve(context, run, workload, rate)}});
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
