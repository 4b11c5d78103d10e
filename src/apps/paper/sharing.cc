// Figures sharing and shared-prefix: what it saves that sequences hold the same blocks.
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/paper/figures.h"

namespace quire {

namespace {

constexpr int kWidths[] = {2, 4, 6};
// Figure 15 of the paper, percent of blocks saved: at widths 2 and 6.
const std::map<std::string, std::pair<double, double>> kPaperParallel = {{"sharegpt", {16.2, 30.5}},
                                                                         {"alpaca", {6.1, 9.8}}};
const std::map<std::string, std::pair<double, double>> kPaperBeam = {{"sharegpt", {44.3, 66.3}},
                                                                     {"alpaca", {37.6, 55.2}}};

// Every request asks for n answers, all of the drawn length.
std::vector<PaperRequest> with_answers(std::vector<PaperRequest> requests, int n) {
  for (PaperRequest& request : requests) request.n = n;
  return requests;
}
// The same as n requests that know nothing of one another.
std::vector<PaperRequest> apart(const std::vector<PaperRequest>& requests, int n) {
  std::vector<PaperRequest> all;
  for (const PaperRequest& request : requests) all.insert(all.end(), n, request);
  return all;
}

// How often a beam dies depends on the model: in model-time nobody does at a certain step.
std::vector<double> certainties(const PaperContext& context) {
  if (context.is_simulated()) return {0, 0.9, 0.99};
  return {0};
}

// Of one width: n answers, or that many beams, beside as many requests that share nothing.
struct SharingRuns {
  PaperOutcome apart, answers;
  std::vector<PaperOutcome> beams;  // by certainties()
};

void run_one(const PaperContext& context,
             const std::string& workload,
             int width,
             int which,
             SharingRuns* runs) {
  PaperRun run{.system = paged_system(),
               .measures_memory = true,
               .seed = context.seed,
               .stop_at = context.end_of_overload()};
  std::vector<PaperRequest> requests =
      context.requests(workload, context.overload(workload) / width);
  // In model-time fewer requests arrive until the end; measured, the rest are left out.
  if (!context.is_simulated()) requests.resize(requests.size() / width);
  if (which == 0) {
    requests = apart(requests, width);
  } else if (which == 1) {
    requests = with_answers(requests, width);
  } else {
    run.beam_certainty = certainties(context)[which - 2];
    for (PaperRequest& request : requests) request.beam_width = width;
  }
  PaperOutcome& outcome = which == 0   ? runs->apart
                          : which == 1 ? runs->answers
                                       : runs->beams[which - 2];
  outcome = context.run(run, requests);
}

std::vector<SharingRuns> run_all(const PaperContext& context, const std::string& workload) {
  const int num_beams = static_cast<int>(certainties(context).size()), num_runs = 2 + num_beams;
  std::vector<SharingRuns> runs(std::size(kWidths));
  for (SharingRuns& width : runs) width.beams.resize(num_beams);
  context.for_each(num_runs * static_cast<int>(runs.size()), [&](int i) {
    run_one(context, workload, kWidths[i / num_runs], i % num_runs, &runs[i / num_runs]);
  });
  return runs;
}

// Requests a second, over what they would be apart.
double gain(const PaperOutcome& outcome, const SharingRuns& runs, int width) {
  return outcome.requests_per_second * width / runs.apart.requests_per_second;
}

void print_paper(const std::map<std::string, std::pair<double, double>>& paper,
                 const std::string& workload) {
  const auto found = paper.find(workload);
  if (found == paper.end()) return;
  std::printf("    paper: %.1f (2) to %.1f (6) %%\n", found->second.first, found->second.second);
}

Json parallel_rows(const std::vector<SharingRuns>& runs, const std::string& workload) {
  Json rows = Json::array();
  std::printf("  parallel sampling\n");
  for (size_t i = 0; i < runs.size(); ++i) {
    const PaperOutcome& outcome = runs[i].answers;
    const double faster = gain(outcome, runs[i], kWidths[i]);
    std::printf("    n = %d: %5.1f %% of blocks saved, %.2f times the requests/s without sharing\n",
                kWidths[i],
                100 * outcome.blocks_saved,
                faster);
    rows.push_back({{"n", kWidths[i]}, {"saved", outcome.blocks_saved}, {"gain", faster}});
  }
  print_paper(kPaperParallel, workload);
  return rows;
}

Json beam_rows(const PaperContext& context,
               const std::vector<SharingRuns>& runs,
               const std::string& workload) {
  const std::vector<double> certainty = certainties(context);
  Json rows = Json::array();
  std::printf("  beam search%s: blocks saved, requests/s\n",
              context.is_simulated() ? ", by the share of certain steps" : "");
  for (size_t i = 0; i < runs.size(); ++i) {
    Json row = {{"width", kWidths[i]}, {"by_certainty", Json::array()}};
    std::printf("    width %d:", kWidths[i]);
    for (size_t c = 0; c < certainty.size(); ++c) {
      const PaperOutcome& outcome = runs[i].beams[c];
      const double faster = gain(outcome, runs[i], kWidths[i]);
      if (context.is_simulated()) std::printf("  [%.2f]", certainty[c]);
      std::printf(" %4.1f %%, %.2f x", 100 * outcome.blocks_saved, faster);
      row["by_certainty"].push_back(
          {{"certainty", certainty[c]}, {"saved", outcome.blocks_saved}, {"gain", faster}});
    }
    std::printf("\n");
    rows.push_back(row);
  }
  print_paper(kPaperBeam, workload);
  return rows;
}

Json range_of(const std::map<std::string, std::pair<double, double>>& paper,
              const std::string& workload) {
  const auto found = paper.find(workload);
  if (found == paper.end()) return nullptr;
  return {found->second.first / 100, found->second.second / 100};
}

}  // namespace

Json sharing_figure(const PaperContext& context) {
  Json panels = Json::array();
  for (const std::string& workload : context.workloads()) {
    std::printf("%s\n", workload.c_str());
    const std::vector<SharingRuns> runs = run_all(context, workload);
    if (context.has_failed()) return {};
    Json parallel = parallel_rows(runs, workload);
    Json beam = beam_rows(context, runs, workload);
    panels.push_back({{"workload", workload},
                      {"parallel", parallel},
                      {"beam", beam},
                      {"paper_parallel", range_of(kPaperParallel, workload)},
                      {"paper_beam", range_of(kPaperBeam, workload)}});
  }
  return {{"panels", panels}};
}

// Figure 16: translation with 80 tokens (one example) and 341 tokens (five) before each sentence.
Json shared_prefix_figure(const PaperContext& context) {
  Json rows = Json::array();
  for (const auto& [paper_prefix, paper] : {std::pair{80, 1.67}, std::pair{341, 3.58}}) {
    const int prefix = paper_prefix / context.sizes().length_scale;
    const auto requests_at = [&context, prefix](double rate) {
      std::vector<PaperRequest> requests = context.requests("translation", rate);
      for (PaperRequest& request : requests) {
        request.prompt += prefix;
        request.shared_prefix = prefix;
      }
      return requests;
    };
    const PaperRun sharing{.system = paged_system(), .prefix_caching = true};
    const PaperRun paged{.system = paged_system()};
    const PaperRun oracle{.system = orca_oracle_system()};
    const double rate = context.sustained_rate(sharing, requests_at);
    const double unshared = context.sustained_rate(paged, requests_at);
    const double baseline = context.sustained_rate(oracle, requests_at);
    if (context.has_failed()) return {};
    std::printf(
        "prefix of %3d tokens: %6.2f requests/s, unshared %6.2f, Orca (Oracle) %6.2f: "
        "%.2f times (paper %.2f)\n",
        prefix,
        rate,
        unshared,
        baseline,
        rate / baseline,
        paper);
    std::fflush(stdout);
    rows.push_back({{"prefix_tokens", prefix},
                    {"sustained_rate", rate},
                    {"sustained_rate_unshared", unshared},
                    {"sustained_rate_oracle", baseline},
                    {"over_oracle", rate / baseline},
                    {"paper_over_oracle", paper}});
  }
  return {{"workload", "translation"}, {"latency_limit", kLatencyLimit}, {"rows", rows}};
}

}  // namespace quire
