// What each fusion, and all of them, are worth: steps of a model with fusion and without, in turns.
#include "model/fusion.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/bench_model.h"
#include "apps/paper/figures.h"
#include "kernels/backend.h"

namespace quire {
namespace {

constexpr int kTokens = 512;       // of a prefill, and of the context that is decoded at
constexpr int kDecodedTokens = 4;  // of each sequence in a measurement

struct Case {
  const char* kind;
  int batch, depth;
};

// One that is off at a time, then all.
struct Variant {
  std::string name;
  FusionSet fusions;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (int i = 0; i < kNumFusions; ++i) {
    const auto fusion = static_cast<Fusion>(i);
    all.push_back({fusion_name(fusion), FusionSet::all().without(fusion)});
  }
  all.push_back({"all", FusionSet::none()});
  return all;
}

// A model that runs with any set of fusions.
class FusionBench {
 public:
  static Result<FusionBench> load(const ComparisonSettings& settings) {
    FusionBench bench;
    QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(settings.model));
    QUIRE_ASSIGN_OR_RETURN(bench.loaded_, load_model(path, {.num_threads = settings.num_threads}));
    bench.model_ = std::move(bench.loaded_.model);
    bench.settings_ = settings;
    const int longest = bench.model_->config().max_position;
    bench.tokens_ = std::clamp(longest - 2 * kDecodedTokens, 1, kTokens);
    bench.depth_ = std::clamp(longest / 2, 1, kTokens);
    return bench;
  }

  Result<std::unique_ptr<ModelBench>> with(FusionSet fusions) const {
    EngineConfig config;
    config.num_threads = settings_.num_threads;
    config.fusion = fusions.to_string();
    BenchPlan plan;
    plan.prompt_tokens = tokens_;
    plan.generate_tokens = kDecodedTokens;
    plan.batches = {8};
    plan.depths = {std::min(depth_, model_->config().max_position - tokens_)};
    return ModelBench::create(loaded_, model_, config, plan);
  }

  std::vector<Case> cases() const {
    return {{"decode", 1, depth_}, {"decode", 8, depth_}, {"prefill", 1, 0}};
  }
  std::string describe(const Case& c) const {
    if (c.kind == std::string("prefill")) return "prefill of " + std::to_string(tokens_);
    return "decode of " + std::to_string(c.batch) + " at " + std::to_string(c.depth);
  }

 private:
  LoadedModel loaded_;
  std::shared_ptr<const Model> model_;
  ComparisonSettings settings_;
  int tokens_ = 0, depth_ = 0;
};

// A prefill takes long and varies little.
int rounds_of(const ComparisonSettings& settings, const Case& c) {
  return c.kind == std::string("prefill") ? (settings.rounds + 1) / 2 : settings.rounds;
}

Result<double> seconds_of(ModelBench& bench, const Case& c) {
  BenchResult result{.kind = c.kind, .batch = c.batch, .depth = c.depth};
  QUIRE_RETURN_IF_ERROR(c.kind == std::string("prefill") ? bench.run_prefill(result)
                                                         : bench.run_decode(result));
  return result.tokens / result.tokens_per_second.back();
}

}  // namespace

Result<Json> fusion_figure(const ComparisonSettings& settings) {
  QUIRE_ASSIGN_OR_RETURN(const FusionBench bench, FusionBench::load(settings));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<ModelBench> fused, bench.with(FusionSet::all()));
  const std::string machine = settings.model + ", " + fused->runner().ops().name + ", " +
                              std::to_string(fused->runner().num_threads()) + " threads";
  std::printf("fusion, measured: %s; time without / with, in turns\n", machine.c_str());
  std::printf(
      "%-20s %-14s %9s %9s %7s %15s\n", "case", "fusion", "with", "without", "ratio", "95 %");
  Json panels = Json::array();
  for (const Case& c : bench.cases()) panels.push_back({{"case", bench.describe(c)}, {"rows", {}}});
  for (const Variant& variant : variants()) {
    QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<ModelBench> apart, bench.with(variant.fusions));
    for (size_t i = 0; i < panels.size(); ++i) {
      const Case c = bench.cases()[i];
      QUIRE_ASSIGN_OR_RETURN(const PairedTimes times,
                             compare_in_turns(
                                 rounds_of(settings, c),
                                 [&] { return seconds_of(*fused, c); },
                                 [&] { return seconds_of(*apart, c); }));
      std::printf("%-20s %-14s %6.1f ms %6.1f ms %7.3f  %.3f .. %.3f (%d rounds)\n",
                  bench.describe(c).c_str(),
                  variant.name.c_str(),
                  1e3 * times.first,
                  1e3 * times.second,
                  times.ratio,
                  times.ratio_low,
                  times.ratio_high,
                  times.rounds);
      std::fflush(stdout);
      Json row = {{"fusion", variant.name}, {"without", variant.fusions.to_string()}};
      row.update(to_json(times));
      panels[i]["rows"].push_back(row);
    }
  }
  return Json{{"machine", machine}, {"panels", panels}};
}

}  // namespace quire
