#include "apps/cmd_bench_paper.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/json_file.h"
#include "apps/paper/figures.h"
#include "base/files.h"
#include "base/thread_pool.h"

namespace quire {
namespace {

struct PaperFlags {
  std::string figure, json_file, trace_file;
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

Result<PaperContext> make_context(const PaperFlags& flags) {
  PaperContext context;
  QUIRE_ASSIGN_OR_RETURN(context.parameters, parse_paper_parameters(paper_parameters_json()));
  context.seed = flags.seed;
  context.num_threads = default_num_threads();
  if (flags.full) context.seconds = 3600;
  if (flags.trace_file.empty()) return context;
  if (flags.figure == "shared-prefix") {
    return invalid_argument(
        "--trace has no effect on shared-prefix, which draws sentences behind a prefix: leave it "
        "out");
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string csv, read_whole_file(flags.trace_file, "the trace"));
  QUIRE_ASSIGN_OR_RETURN(context.trace, parse_azure_trace(csv, flags.trace_file));
  context.trace_name = flags.trace_file;
  const int max_len = static_cast<int>(context.cost().max_model_len);
  const size_t kept = scale_trace(context.trace, 1, 1e9, max_len).size();
  if (kept == 0) {
    return invalid_argument(flags.trace_file + " has no request of at most " +
                            std::to_string(max_len) + " tokens, the model's context");
  }
  std::printf("%s: %zu requests, %zu of them within the context of %d tokens\n",
              flags.trace_file.c_str(),
              context.trace.size(),
              kept,
              max_len);
  return context;
}

Status run(const PaperFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const PaperFigure* const figure, find_figure(flags.figure));
  QUIRE_ASSIGN_OR_RETURN(const PaperContext context, make_context(flags));
  QUIRE_ASSIGN_OR_RETURN(const JsonFile file, JsonFile::open(flags.json_file));
  std::printf(
      "%s, SIMULATED: quire's scheduler and KV policies in model-time, %s by a cost model\n",
      figure->name,
      context.cost().name.c_str());
  const Json result = figure->run(context);
  Json json = {{"figure", figure->name},
               {"form", "model-time"},
               {"simulated", true},
               {"machine", context.cost().name},
               {"seed", flags.seed},
               {"arrival_seconds", context.seconds},
               {"trace", context.trace_name}};
  json.update(result);
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
  line.flag("--full", flags->full, "an hour of arrivals, as in the paper, instead of 10 minutes");
  std::string figures = "Figures:";
  for (const PaperFigure& figure : paper_figures()) {
    figures += std::string("\n  ") + figure.name + ": " + figure.help;
  }
  line.footer(figures);
  return [flags] { return run(*flags); };
}

}  // namespace quire
