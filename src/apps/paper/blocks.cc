// Figures block-size and preemption.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/paper/figures.h"

namespace quire {

// Figure 18b: small blocks cost lookups, large ones memory.
Json block_size_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    std::printf("%s: %s\n", workload.c_str(), context.rate_name().c_str());
    Json rows = Json::array();
    const std::vector<int> sizes = context.block_sizes();
    std::vector<double> rates(sizes.size());
    context.for_each(static_cast<int>(rates.size()), [&](int i) {
      rates[i] = context.sustained_rate({.system = paged_system(), .block_size = sizes[i]},
                                        [&](double r) { return context.requests(workload, r); });
    });
    if (context.has_failed()) return {};
    for (size_t i = 0; i < rates.size(); ++i) {
      std::printf("  blocks of %3d: %6.2f\n", sizes[i], rates[i]);
      rows.push_back({{"block_size", sizes[i]}, {"sustained_rate", rates[i]}});
    }
    Json panel = {{"workload", workload}, {"rows", rows}};
    if (workload == "sharegpt") panel["paper_best"] = {16, 128};
    if (workload == "alpaca") panel["paper_best"] = {16, 32};
    panels.push_back(panel);
  }
  return {{"latency_limit", kLatencyLimit}, {"panels", panels}};
}

namespace {

// Seconds to bring a sequence of so many tokens back: by computing it again, by copying it out and
// in.
std::pair<double, double> cost_of_one(const PaperContext& context,
                                      const PaperRun& run,
                                      int num_tokens) {
  if (context.has_failed()) return {};
  const Result<std::unique_ptr<PaperMachine>> machine = context.platform().machine(run);
  if (!machine.ok()) {
    context.fail(machine.status());
    return {};
  }
  const Result<double> recompute = (*machine)->seconds_to_prefill(num_tokens);
  if (!recompute.ok()) {
    context.fail(recompute.status());
    return {};
  }
  return {*recompute, (*machine)->seconds_to_swap(num_blocks_for(num_tokens, run.block_size))};
}

}  // namespace

// Figure 19: what it costs to bring a sequence back, and what that makes of a loaded server.
Json preemption_figure(const PaperContext& context) {
  const int tokens = 256 / context.sizes().length_scale;
  const std::string workload = context.workloads()[0];
  const double rate =
      context.is_simulated()
          ? context.sustained_rate({.system = paged_system()},
                                   [&](double r) { return context.requests(workload, r); })
          : context.overload(workload);
  const std::vector<PaperRequest> requests = context.requests(workload, rate);
  std::printf("of a sequence of %d tokens, and %s, %s\n",
              tokens,
              workload.c_str(),
              context.rate_text(rate).c_str());
  std::printf("%-10s %12s %12s | %22s %22s\n",
              "",
              "recompute",
              "swap out, in",
              "recompute s/tok (count)",
              "swap s/tok (count)");
  Json rows = Json::array();
  for (const int block_size : context.block_sizes()) {
    PaperRun run{.system = paged_system(), .block_size = block_size};
    const PaperOutcome recompute = context.run(run, requests);
    run.swaps = true;
    const PaperOutcome swap = context.run(run, requests);
    const auto [one_recompute, one_swap] = cost_of_one(context, run, tokens);
    if (context.has_failed()) return {};
    std::printf("blocks %3d %9.1f ms %9.1f ms | %14.3f (%5lld) %14.3f (%5lld)\n",
                block_size,
                1e3 * one_recompute,
                1e3 * one_swap,
                recompute.normalised_latency,
                static_cast<long long>(recompute.stats.num_preemptions),
                swap.normalised_latency,
                static_cast<long long>(swap.stats.num_preemptions));
    std::fflush(stdout);
    rows.push_back({{"block_size", block_size},
                    {"recompute_seconds", one_recompute},
                    {"swap_seconds", one_swap},
                    {"recompute_latency", recompute.normalised_latency},
                    {"swap_latency", swap.normalised_latency},
                    {"recompute_preemptions", recompute.stats.num_preemptions},
                    {"swap_preemptions", swap.stats.num_preemptions}});
  }
  std::printf(
      "paper: recomputing costs at most 20 %% more than swapping; swapping small blocks is "
      "slow; 16 to 64 comparable\n");
  return {{"workload", workload},
          {"rate", context.rate_value(rate)},
          {"tokens", tokens},
          {"rows", rows}};
}

}  // namespace quire
