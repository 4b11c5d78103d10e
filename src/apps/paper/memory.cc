// Figures memory-waste and batch-size.
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/paper/figures.h"

namespace quire {

// Kwon et al., SOSP 2023, figure 2: percent of the KV memory that holds tokens.
Json memory_waste_figure(const PaperContext& context) {
  const std::map<std::string, double> paper = {
      {"orca-max", 20.4}, {"orca-pow2", 26.8}, {"orca-oracle", 38.2}, {"paged", 96.3}};
  const std::string workload = context.workloads()[0];
  const double rate = context.overload(workload);
  Json rows = Json::array();
  std::printf("%-20s %8s %8s %8s %8s | %s\n",
              "% of KV memory",
              "tokens",
              "reserved",
              "internal",
              "external",
              "tokens in the paper");
  for (const PaperSystem& system : paper_systems(context.sizes())) {
    const auto expected = paper.find(system.name);
    if (expected == paper.end()) continue;
    const PaperRun run{
        .system = system, .measures_memory = true, .stop_at = context.end_of_overload()};
    const KvShares kv = context.run(run, context.requests(workload, rate)).kv;
    if (context.has_failed()) return {};
    std::printf("%-20s %8.1f %8.1f %8.1f %8.1f | %.1f\n",
                system.label.c_str(),
                100 * kv.tokens,
                100 * kv.reserved,
                100 * kv.internal,
                100 * kv.external,
                expected->second);
    rows.push_back({{"system", system.name},
                    {"label", system.label},
                    {"tokens", kv.tokens},
                    {"reserved", kv.reserved},
                    {"internal", kv.internal},
                    {"external", kv.external},
                    {"paper_tokens", expected->second / 100}});
  }
  return {{"workload", workload}, {"rate", context.rate_value(rate)}, {"rows", rows}};
}

namespace {

// Of the paper: ShareGPT at 2 requests/s, 2.2 times Orca (Oracle) and 4.3 times Orca (Max).
Json batch_size_panel(const PaperContext& context, const std::string& workload, double rate) {
  std::map<std::string, double> running;
  Json rows = Json::array();
  std::printf("%s, %s\n", workload.c_str(), context.rate_text(rate).c_str());
  for (const PaperSystem& system : paper_systems(context.sizes())) {
    if (system.batching != Batching::kContinuous) continue;
    const PaperRun run{.system = system, .stop_at = context.end_of_overload()};
    running[system.name] = context.run(run, context.requests(workload, rate)).mean_running;
    if (context.has_failed()) return {};
    std::printf("  %-20s %8.2f requests at once\n", system.label.c_str(), running[system.name]);
    rows.push_back(
        {{"system", system.name}, {"label", system.label}, {"mean_running", running[system.name]}});
  }
  const double over_oracle = running["paged"] / running["orca-oracle"];
  const double over_max = running["paged"] / running["orca-max"];
  const bool in_paper = workload == "sharegpt" && (rate == 2 || !context.is_simulated());
  std::printf("  paged / oracle %.2f%s, paged / max %.2f%s\n",
              over_oracle,
              in_paper ? " (paper 2.2)" : "",
              over_max,
              in_paper ? " (paper 4.3)" : "");
  Json panel = {{"workload", workload},
                {"rate", context.rate_value(rate)},
                {"rows", rows},
                {"over_oracle", over_oracle},
                {"over_max", over_max}};
  if (in_paper) panel["paper"] = {{"over_oracle", 2.2}, {"over_max", 4.3}};
  return panel;
}

}  // namespace

// Figure 13: the average number of batched requests.
Json batch_size_figure(const PaperContext& context) {
  const std::map<std::string, double> paper_rates = {{"sharegpt", 2}, {"alpaca", 30}, {"trace", 2}};
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    if (context.is_simulated()) {
      panels.push_back(batch_size_panel(context, workload, paper_rates.at(workload)));
    }
    panels.push_back(batch_size_panel(context, workload, context.overload(workload)));
  }
  return {{"panels", panels}};
}

}  // namespace quire
