#include "apps/cmd_bench_paper.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/json_file.h"
#include "apps/paper/figures.h"
#include "apps/paper/measured.h"
#include "apps/paper/model_time.h"
#include "base/files.h"
#include "base/thread_pool.h"
#include "engine/engine_config.h"

namespace quire {
namespace {

struct PaperFlags {
  std::string figure, json_file, trace_file, model;
  int num_threads = 0;
  uint64_t seed = 1;
  bool full = false;
};

std::string figure_names() {
  std::string names;
  for (const PaperFigure& figure : paper_figures()) {
    names += (names.empty() ? "" : ",") + std::string(figure.name);
  }
  return "{" + names + "}";
}

Result<const PaperFigure*> find_figure(const std::string& name) {
  for (const PaperFigure& figure : paper_figures()) {
    if (figure.name == name) return &figure;
  }
  return invalid_argument("unknown figure '" + name + "': FIGURE is one of " + figure_names());
}

Result<std::vector<PaperRequest>> read_trace(const PaperFlags& flags) {
  if (flags.trace_file.empty()) return std::vector<PaperRequest>();
  if (flags.figure == "shared-prefix") {
    return invalid_argument(
        "--trace has no effect on shared-prefix, which draws sentences behind a prefix: leave it "
        "out");
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string csv, read_whole_file(flags.trace_file, "the trace"));
  return parse_azure_trace(csv, flags.trace_file);
}

Status use_trace(std::vector<PaperRequest> trace, const std::string& name, PaperContext& context) {
  if (trace.empty()) return {};
  const int max_len = context.sizes().max_model_len * context.sizes().length_scale;
  const size_t kept = scale_trace(trace, 1, 1e9, max_len).size();
  if (kept == 0) {
    return invalid_argument(name + " has no request of at most " + std::to_string(max_len) +
                            " tokens, which is what these figures take");
  }
  std::printf("%s: %zu requests, %zu of them of at most %d tokens\n",
              name.c_str(),
              trace.size(),
              kept,
              max_len);
  context.trace = std::move(trace);
  context.trace_name = name;
  return {};
}

Result<std::unique_ptr<PaperPlatform>> make_platform(const PaperFlags& flags,
                                                     const CostModel& cost) {
  if (flags.model.empty() && flags.num_threads != 0) {
    return invalid_argument("--threads has no effect without --model: leave it out");
  }
  auto simulated = std::make_unique<ModelTimePlatform>(cost);
  if (flags.model.empty()) return std::unique_ptr<PaperPlatform>(std::move(simulated));
  QUIRE_ASSIGN_OR_RETURN(
      std::unique_ptr<PaperPlatform> measured,
      MeasuredPlatform::load(
          flags.model, flags.num_threads, measured_sizes(simulated->sizes()), paper_prompt_text()));
  return measured;
}

void print_platform(const PaperFigure& figure, const PaperContext& context) {
  const PaperSizes& sizes = context.sizes();
  if (context.is_simulated()) {
    std::printf(
        "%s, SIMULATED: quire's scheduler and KV policies in model-time, %s by a cost model\n",
        figure.name,
        context.platform().name().c_str());
    return;
  }
  std::printf(
      "%s, measured: %s; KV memory of %lld tokens, context %d, lengths a %dth of the paper's\n",
      figure.name,
      context.platform().name().c_str(),
      static_cast<long long>(sizes.kv_tokens),
      sizes.max_model_len,
      sizes.length_scale);
}

// A figure whose experiments run on a platform: simulated, or measured on a model.
Result<Json> run_experiments(const PaperFigure& figure, const PaperFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const PaperParameters parameters,
                         parse_paper_parameters(paper_parameters_json()));
  QUIRE_ASSIGN_OR_RETURN(std::vector<PaperRequest> trace, read_trace(flags));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<PaperPlatform> platform,
                         make_platform(flags, parameters.cost));
  PaperContext context(*platform, parameters);
  context.seed = flags.seed;
  context.is_full = flags.full;
  if (context.is_simulated()) context.num_threads = default_num_threads();
  if (flags.full) context.seconds = 3600;
  if (flags.full) context.num_requests *= 4;
  QUIRE_RETURN_IF_ERROR(use_trace(std::move(trace), flags.trace_file, context));
  print_platform(figure, context);
  const Json result = figure.run(context);
  QUIRE_RETURN_IF_ERROR(context.failure());
  Json json = {{"form", context.is_simulated() ? "model-time" : "real"},
               {"simulated", context.is_simulated()},
               {"machine", platform->name()},
               {"length_scale", context.sizes().length_scale},
               {"trace", context.trace_name}};
  if (context.is_simulated()) {
    json["arrival_seconds"] = context.seconds;
  } else {
    json["requests_about"] = context.num_requests;
  }
  json.update(result);
  return json;
}

// A figure that compares two ways on this machine.
Result<Json> run_comparison(const PaperFigure& figure, const PaperFlags& flags) {
  if (!flags.trace_file.empty()) {
    return invalid_argument("--trace has no effect on " + flags.figure +
                            ", which draws no requests: leave it out");
  }
  ComparisonSettings settings;
  settings.model = flags.model.empty() ? "smollm2" : flags.model;
  settings.num_threads = flags.num_threads > 0 ? flags.num_threads : default_num_threads();
  settings.seed = flags.seed;
  if (flags.full) settings.rounds *= 4;
  QUIRE_ASSIGN_OR_RETURN(Json json, figure.compare(settings));
  json["form"] = "real";
  json["simulated"] = false;
  return json;
}

Status run(const PaperFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const PaperFigure* const figure, find_figure(flags.figure));
  QUIRE_ASSIGN_OR_RETURN(const JsonFile file, JsonFile::open(flags.json_file));
  QUIRE_ASSIGN_OR_RETURN(
      Json json,
      figure->run != nullptr ? run_experiments(*figure, flags) : run_comparison(*figure, flags));
  json["figure"] = figure->name;
  json["seed"] = flags.seed;
  return file.write(json);
}

}  // namespace

Command add_bench_paper_command(CommandLine line) {
  auto flags = std::make_shared<PaperFlags>();
  line.option("FIGURE", flags->figure, "which one").type_name(figure_names()).required();
  line.option("--json", flags->json_file, "write the results to this file");
  line.option("--trace",
              flags->trace_file,
              "requests of an Azure LLM inference trace of 2023 (CSV: TIMESTAMP, ContextTokens, "
              "GeneratedTokens) instead of drawn ones");
  line.option("--seed", flags->seed, "of lengths and arrivals").shows_default();
  line.option("--model",
              flags->model,
              "compute every step with this model, as for quire run, instead of simulating it; "
              "lengths and KV memory are an eighth of the paper's. Figures that compare two ways "
              "always compute, with smollm2 if nothing is said");
  line.option("--threads", flags->num_threads, "CPU threads for --model; 0 = every core")
      .within(0, kMaxThreads)
      .shows_default();
  line.flag("--full",
            flags->full,
            "simulated: an hour of arrivals, as in the paper, instead of 10 minutes; measured: "
            "four times the requests, and Alpaca; comparisons: four times the rounds");
  std::string figures = "Figures:";
  for (const PaperFigure& figure : paper_figures()) {
    figures += std::string("\n  ") + figure.name + ": " + figure.help;
  }
  line.footer(figures);
  return [flags] { return run(*flags); };
}

}  // namespace quire
