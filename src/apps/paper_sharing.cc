// Figures sharing and shared-prefix: what it saves that sequences hold the same blocks.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/paper_figures.h"
#include "base/hash.h"

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

struct SharingOutcome {
  double saved, throughput, throughput_apart;
};

// Overloaded, so that memory is the limit.
SharingOutcome run_parallel(const PaperContext& context, const std::string& workload, int n) {
  const double rate = (workload == "alpaca" ? 60.0 : 4.0) / n;
  const PaperRun run{.system = paged_system(), .measures_memory = true, .stop_at = context.seconds};
  const std::vector<PaperRequest> requests = context.requests(workload, rate);
  const PaperOutcome shared = run_in_model_time(context.cost(), run, with_answers(requests, n));
  const PaperOutcome alone = run_in_model_time(context.cost(), run, apart(requests, n));
  return {shared.blocks_saved, shared.tokens_per_second, alone.tokens_per_second};
}

// Beam search on a real BlockPool, with a random stand-in for the model: the candidates of a beam
// fall off by gaps that are exponential with this mean, in nats. Small gaps: uncertain, many beams
// die; large gaps: the beams stay apart.
class BeamSearch {
 public:
  BeamSearch(int width, double gap, uint64_t seed, int num_blocks, int block_size)
      : width_(width), gap_(gap), random_(seed), pool_(num_blocks, block_size) {}

  // Blocks used and blocks that beams without sharing would hold, summed over the steps.
  std::pair<double, double> run(int prompt, int output) {
    std::vector<Beam> beams(1);
    if (!beams[0].table.reserve(pool_, prompt)) return {0, 0};
    double used = 0, held = 0;
    for (int length = prompt + 1; length < prompt + output; ++length) {
      beams = advance(std::move(beams), length);
      for (const Beam& beam : beams) held += beam.table.size();
      used += pool_.num_used();
    }
    for (Beam& beam : beams) beam.table.release(pool_);
    return {used, held};
  }

 private:
  struct Beam {
    double score = 0;
    BlockTable table;
  };
  struct Candidate {
    double score;
    size_t parent;
  };
  double exponential(double mean) {
    random_ = mix64(random_ + 0x9e3779b97f4a7c15u);
    return -mean * std::log((static_cast<double>(random_ >> 11) + 0.5) * 0x1p-53);
  }

  // The best `width` of all candidates go on, each as a fork of its parent with one token more.
  std::vector<Beam> advance(std::vector<Beam> beams, int length) {
    std::vector<Candidate> candidates;
    for (size_t b = 0; b < beams.size(); ++b) {
      double score = beams[b].score - exponential(gap_);
      for (int i = 0; i < width_; ++i) {
        candidates.push_back({score, b});
        score -= exponential(gap_);
      }
    }
    std::ranges::stable_sort(candidates, std::greater<>{}, &Candidate::score);
    candidates.resize(width_);
    std::vector<Beam> next(width_);
    for (int i = 0; i < width_; ++i) {
      next[i].score = candidates[i].score;
      next[i].table.fork(pool_, beams[candidates[i].parent].table);
    }
    for (Beam& beam : beams) beam.table.release(pool_);
    std::vector<BlockCopy> copies;
    for (Beam& beam : next) {
      const int last = (length - 1) / pool_.block_size();
      if (last < beam.table.size()) beam.table.make_writable(pool_, last, &copies);
      beam.table.reserve(pool_, length);
    }
    return next;
  }

  int width_;
  double gap_;
  uint64_t random_;
  BlockPool pool_;
};

double beam_saving(const PaperContext& context,
                   const std::string& workload,
                   int width,
                   double gap) {
  constexpr size_t kNumRequests = 200;
  std::vector<PaperRequest> requests = context.requests(workload, 4);
  requests.resize(std::min(requests.size(), kNumRequests));
  const int block_size = static_cast<int>(context.cost().block_size);
  const int max_len = static_cast<int>(context.cost().max_model_len);
  const int num_blocks = (2 * width + 1) * num_blocks_for(max_len, block_size);
  double used = 0, held = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    BeamSearch search(width, gap, hash_combine(context.seed, i), num_blocks, block_size);
    const auto [u, h] = search.run(requests[i].prompt, requests[i].output);
    used += u;
    held += h;
  }
  return held > 0 ? 1 - used / held : 0;
}

void print_paper(const std::map<std::string, std::pair<double, double>>& paper,
                 const std::string& workload) {
  const auto found = paper.find(workload);
  if (found == paper.end()) return;
  std::printf("    paper: %.1f (2) to %.1f (6) %%\n", found->second.first, found->second.second);
}

Json parallel_rows(const PaperContext& context, const std::string& workload) {
  Json rows = Json::array();
  std::printf("  parallel sampling\n");
  for (const int n : kWidths) {
    const SharingOutcome o = run_parallel(context, workload, n);
    std::printf("    n = %d: %5.1f %% of blocks saved; %7.1f tokens/s, without sharing %7.1f\n",
                n,
                100 * o.saved,
                o.throughput,
                o.throughput_apart);
    rows.push_back({{"n", n},
                    {"saved", o.saved},
                    {"tokens_per_second", o.throughput},
                    {"tokens_per_second_without", o.throughput_apart}});
  }
  print_paper(kPaperParallel, workload);
  return rows;
}

Json beam_rows(const PaperContext& context, const std::string& workload) {
  Json rows = Json::array();
  std::printf("  beam search, by the mean gap between a beam's candidates\n");
  for (const int width : kWidths) {
    Json row = {{"width", width}};
    std::printf("    width %d:", width);
    for (const double gap : {0.5, 2.0, 8.0}) {
      const double saved = beam_saving(context, workload, width, gap);
      std::printf("  %.1f nats %5.1f %%", gap, 100 * saved);
      row["by_gap"].push_back({{"gap_nats", gap}, {"saved", saved}});
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
    Json parallel = parallel_rows(context, workload);
    Json beam = beam_rows(context, workload);
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
  for (const auto& [prefix, paper] : {std::pair{80, 1.67}, std::pair{341, 3.58}}) {
    const auto requests_at = [&context, prefix = prefix](double rate) {
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
    const double rate = sustained_rate(context.cost(), sharing, requests_at);
    const double unshared = sustained_rate(context.cost(), paged, requests_at);
    const double baseline = sustained_rate(context.cost(), oracle, requests_at);
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
