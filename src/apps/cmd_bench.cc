// quire bench: what this machine does with a model, next to what it could do at most.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench_model.h"
#include "apps/cmd_bench_paper.h"
#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/json_file.h"
#include "apps/report.h"
#include "apps/terminal.h"
#include "frontend/json.h"
#include "kernels/backend.h"
#include "kernels/machine_limits.h"

namespace quire {
namespace {

struct BenchFlags {
  LlmConfig llm;
  BenchPlan plan;
  std::string json_file;
};

struct Spread {
  double median, min, max;
};

Spread spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

// The arithmetic peak that a case is measured against.
struct ComputeLimit {
  double gops;
  const char* name;
};

ComputeLimit compute_limit(const ModelInfo& info,
                           const EngineConfig& engine,
                           const MachineLimits& limits) {
  int64_t quantised = 0, plain = 0;
  for (const TensorGroup& group : info.tensors) {
    (dtype_info(group.type).elems > 1 ? quantised : plain) += group.num_elements;
  }
  if (plain > quantised || engine.activations == "f32") return {limits.fma_gflops, "f32 FMA peak"};
  if (engine.activations == "int8") return {limits.int8_gops, "int8 peak"};
  return {limits.int16_gops, "int16 peak"};
}

class BenchReport {
 public:
  BenchReport(const BenchFlags& flags,
              const LoadedModel& loaded,
              const ModelBench& bench,
              const MachineLimits& limits)
      : limits_(limits), compute_(compute_limit(loaded.info, flags.llm.engine, limits)) {
    json_ = {{"model", flags.llm.model},
             {"isa", bench.runner().ops().name},
             {"threads", bench.runner().num_threads()},
             {"activations", flags.llm.engine.activations},
             {"weight_bytes", loaded.weight_bytes},
             {"limits",
              {{"read_gbps", limits.read_gbps},
               {"fma_gflops", limits.fma_gflops},
               {"int8_gops", limits.int8_gops},
               {"int16_gops", limits.int16_gops}}},
             {"results", Json::array()}};
    std::printf("%s, %s, %d threads, %s activations, %s of weights\n",
                flags.llm.model.c_str(),
                bench.runner().ops().name,
                bench.runner().num_threads(),
                flags.llm.engine.activations.c_str(),
                human_bytes(loaded.weight_bytes).c_str());
    std::printf(
        "limits of this machine: read %.1f GB/s, f32 FMA %.0f GFLOP/s, int8 %.0f GOP/s, "
        "int16 %.0f GOP/s\n\n",
        limits.read_gbps,
        limits.fma_gflops,
        limits.int8_gops,
        limits.int16_gops);
    std::printf("%-8s %6s %6s %10s %21s %8s %6s %9s %6s\n",
                "case",
                "batch",
                "depth",
                "tok/s",
                "min .. max",
                "GB/s",
                "share",
                "GOP/s",
                "share");
  }

  void add(const BenchResult& r) {
    const Spread speed = spread(r.tokens_per_second);
    const double gbps = r.bytes_per_token * speed.median / 1e9;
    const double gops = r.operations_per_token * speed.median / 1e9;
    const double read_share = gbps / limits_.read_gbps, compute_share = gops / compute_.gops;
    std::printf("%-8s %6d %6d %10.1f %10.1f .. %7.1f %8.1f %5.0f%% %9.1f %5.0f%%\n",
                r.kind.c_str(),
                r.batch,
                r.depth,
                speed.median,
                speed.min,
                speed.max,
                gbps,
                100 * read_share,
                gops,
                100 * compute_share);
    std::fflush(stdout);
    json_["results"].push_back(
        {{"kind", r.kind},
         {"batch", r.batch},
         {"depth", r.depth},
         {"tokens", r.tokens},
         {"tokens_per_second", {{"median", speed.median}, {"min", speed.min}, {"max", speed.max}}},
         {"gbps", gbps},
         {"gops", gops},
         {"share_of_read_bandwidth", read_share},
         {"share_of_compute", compute_share},
         {"share_of_limit", std::max(read_share, compute_share)}});
  }

  Status finish(const JsonFile& file) const {
    std::printf(
        "\nGB/s: weights and KV read; GOP/s: multiply and add counted as two, next to %s (%.0f).\n",
        compute_.name,
        compute_.gops);
    return file.write(json_);
  }

 private:
  MachineLimits limits_;
  ComputeLimit compute_;
  Json json_;
};

std::vector<BenchResult> cases(const BenchPlan& plan) {
  std::vector<BenchResult> out;
  for (const int depth : plan.depths) {
    if (plan.prompt_tokens > 0) out.push_back({.kind = "prefill", .batch = 1, .depth = depth});
    if (plan.generate_tokens == 0) continue;
    for (const int batch : plan.batches) {
      out.push_back({.kind = "decode", .batch = batch, .depth = depth});
    }
  }
  return out;
}

Status run(const BenchFlags& flags) {
  QUIRE_RETURN_IF_ERROR(flags.llm.engine.validate());
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(flags.llm.model));
  QUIRE_ASSIGN_OR_RETURN(const JsonFile json, JsonFile::open(flags.json_file));
  const int threads =
      flags.llm.engine.num_threads > 0 ? flags.llm.engine.num_threads : default_num_threads();
  QUIRE_ASSIGN_OR_RETURN(LoadedModel loaded, load_model(path, {.num_threads = threads}));
  std::shared_ptr<const Model> model = std::move(loaded.model);
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<ModelBench> bench,
                         ModelBench::create(loaded, model, flags.llm.engine, flags.plan));
  print_kv_pool(bench->runner().kv_pool());
  ThreadPool pool(threads);
  QUIRE_ASSIGN_OR_RETURN(const MachineLimits limits,
                         measure_machine_limits(bench->runner().ops(), pool));
  BenchReport report(flags, loaded, *bench, limits);
  for (BenchResult& result : cases(flags.plan)) {
    for (int i = 0; i < flags.plan.repeat; ++i) {
      QUIRE_RETURN_IF_ERROR(result.kind == "prefill" ? bench->run_prefill(result)
                                                     : bench->run_decode(result));
      if (Interrupt::requested()) return cancelled("interrupted");
    }
    report.add(result);
  }
  return report.finish(json);
}

}  // namespace

Command add_bench_command(CommandLine line) {
  auto flags = std::make_shared<BenchFlags>();
  CommandLine model = line.subcommand("model", "prefill and decode throughput of a model");
  CommandLine paper =
      line.subcommand("paper", "figures of the PagedAttention paper, simulated or measured");
  const Command run_paper = add_bench_paper_command(paper);
  line.needs_subcommand();
  BenchPlan& plan = flags->plan;
  add_model_argument(model, flags->llm);
  constexpr int64_t kMany = 1 << 20;
  model.option("--prompt-tokens", plan.prompt_tokens, "tokens of a prefill; 0 = none")
      .within(0, kMany)
      .shows_default();
  model.option("--generate-tokens", plan.generate_tokens, "steps of a decode; 0 = none")
      .within(0, kMany)
      .shows_default();
  model.option("--batch", plan.batches, "sequences decoded at once, as in 1,8,32")
      .separated_by(',')
      .within(1, 4096)
      .shows_default();
  model.option("--depth", plan.depths, "tokens already in the KV cache, as in 0,4096")
      .separated_by(',')
      .within(0, kMany)
      .shows_default();
  model.option("--repeat", plan.repeat, "repetitions of each case").within(1, 1000).shows_default();
  model.option("--json", flags->json_file, "write the results to this file");
  add_engine_flags(model, flags->llm);
  return [flags, paper, run_paper] { return paper.parsed() ? run_paper() : run(*flags); };
}

}  // namespace quire
