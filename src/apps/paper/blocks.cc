// Figures block-size and preemption.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/paper/figures.h"

namespace quire {

namespace {
constexpr int kBlockSizes[] = {1, 2, 4, 8, 16, 32, 64, 128, 256};
}  // namespace

// Figure 18b: small blocks cost lookups, large ones memory.
Json block_size_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    std::printf("%s: requests/s at %.1f s per token\n", workload.c_str(), kLatencyLimit);
    Json rows = Json::array();
    std::vector<double> rates(std::size(kBlockSizes));
    for_each_parallel(context, static_cast<int>(rates.size()), [&](int i) {
      const PaperRun run{.system = paged_system(), .block_size = kBlockSizes[i]};
      rates[i] = sustained_rate(
          context.cost(), run, [&](double r) { return context.requests(workload, r); });
    });
    for (size_t i = 0; i < rates.size(); ++i) {
      std::printf("  blocks of %3d: %6.2f\n", kBlockSizes[i], rates[i]);
      rows.push_back({{"block_size", kBlockSizes[i]}, {"sustained_rate", rates[i]}});
    }
    Json panel = {{"workload", workload}, {"rows", rows}};
    if (workload == "sharegpt") panel["paper_best"] = {16, 128};
    if (workload == "alpaca") panel["paper_best"] = {16, 32};
    panels.push_back(panel);
  }
  return {{"latency_limit", kLatencyLimit}, {"panels", panels}};
}

namespace {

// One prompt of so many tokens, computed in one step.
double seconds_to_recompute(const CostModel& cost, int num_tokens, int block_size) {
  ScheduledBatch batch;
  batch.tokens.resize(num_tokens);
  ScheduledSequence entry{};
  entry.num_tokens = num_tokens;
  batch.sequences.push_back(entry);
  return seconds_of_step(cost, batch, block_size, KvPolicy::kPaged) - cost.step_seconds;
}

}  // namespace

// Figure 19: what it costs to bring a sequence back, and what that makes of a loaded server.
Json preemption_figure(const PaperContext& context) {
  constexpr int kTokens = 256;
  const CostModel& cost = context.cost();
  const std::string workload = context.workloads()[0];
  const PaperRun reference{.system = paged_system()};
  const double rate =
      sustained_rate(cost, reference, [&](double r) { return context.requests(workload, r); });
  const std::vector<PaperRequest> requests = context.requests(workload, rate);
  std::printf(
      "of a sequence of %d tokens, and %s at %.2f requests/s\n", kTokens, workload.c_str(), rate);
  std::printf("%-10s %12s %12s | %22s %22s\n",
              "",
              "recompute",
              "swap out, in",
              "recompute s/tok (count)",
              "swap s/tok (count)");
  Json rows = Json::array();
  for (const int block_size : kBlockSizes) {
    PaperRun run{.system = paged_system(), .block_size = block_size};
    const PaperOutcome recompute = run_in_model_time(cost, run, requests);
    run.swaps = true;
    const PaperOutcome swap = run_in_model_time(cost, run, requests);
    const double one_recompute = seconds_to_recompute(cost, kTokens, block_size);
    const double one_swap =
        2 * seconds_to_swap(cost, num_blocks_for(kTokens, block_size), block_size);
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
  return {{"workload", workload}, {"rate", rate}, {"tokens", kTokens}, {"rows", rows}};
}

}  // namespace quire
