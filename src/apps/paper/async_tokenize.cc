// Figure async-tokenize: string work beside the model against string work between its steps.
//
// Every request has a reader of its own, as in a server. All are there at once; prompts differ, and
// nothing is cached.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/paper/figures.h"
#include "apps/paper/measured.h"
#include "apps/terminal.h"
#include "frontend/llm.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

struct StringWorkload {
  const char* name;
  int num_requests, prompt_tokens, answer_tokens;
};
constexpr StringWorkload kWorkloads[] = {{"long prompts, short answers", 4, 128, 2},
                                         {"short prompts, long answers", 16, 8, 16}};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

Result<std::unique_ptr<Llm>> load(const ComparisonSettings& settings, bool async_tokenize) {
  LlmConfig config;
  config.model = settings.model;
  config.engine.num_threads = settings.num_threads;
  config.engine.enable_prefix_caching = false;
  config.engine.kv_cache_memory_bytes = int64_t{256} << 20;
  config.async_tokenize = async_tokenize;
  return Llm::load(std::move(config));
}

// Texts of about so many tokens: pieces of a text that is always there, from different places.
Result<std::vector<std::string>> make_prompts(const Llm& llm,
                                              const StringWorkload& workload,
                                              uint64_t seed) {
  const std::string text(paper_prompt_text());
  QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> all, llm.tokenizer().encode(text, {}));
  const int length = std::min<int>(workload.prompt_tokens, llm.engine_config().max_model_len / 2);
  std::vector<std::string> prompts;
  for (int i = 0; i < workload.num_requests; ++i) {
    std::vector<TokenId> piece;
    for (int j = 0; j < length; ++j) {
      piece.push_back(all[(seed * 101 + i * 613 + j) % all.size()]);  // 613: a prime
    }
    QUIRE_ASSIGN_OR_RETURN(std::string prompt, llm.tokenizer().decode(piece));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

// Of one request, from the moment that its text is handed over.
Status read_answer(Llm& llm, const std::string& prompt, int num_tokens, double* first_text) {
  const Clock::time_point start = Clock::now();
  GenerateRequest request;
  request.prompt = prompt;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = num_tokens;
  request.sampling.ignore_eos = true;
  QUIRE_ASSIGN_OR_RETURN(TextStream stream, llm.submit(std::move(request)));
  *first_text = 0;
  while (const std::optional<TextDelta> delta = stream.next()) {
    if (*first_text == 0) *first_text = seconds_since(start);
    QUIRE_RETURN_IF_ERROR(delta->error);
  }
  return {};
}

// Seconds until all answers are read, and the mean until the first of each is.
struct Run {
  double seconds = 0, first_text = 0;
};
Result<Run> run_once(Llm& llm, const std::vector<std::string>& prompts, int num_tokens) {
  if (Interrupt::requested()) return cancelled("interrupted");
  std::vector<double> first_text(prompts.size());
  std::vector<Status> statuses(prompts.size());
  const Clock::time_point start = Clock::now();
  std::vector<std::thread> readers;
  for (size_t i = 0; i < prompts.size(); ++i) {
    readers.emplace_back(
        [&, i] { statuses[i] = read_answer(llm, prompts[i], num_tokens, &first_text[i]); });
  }
  for (std::thread& reader : readers) reader.join();
  const double seconds = seconds_since(start);
  for (const Status& status : statuses) QUIRE_RETURN_IF_ERROR(status);
  return Run{seconds, mean(first_text)};
}

// What the strings of one run take by themselves, on one thread.
Result<double> string_seconds(const Llm& llm,
                              const std::vector<std::string>& prompts,
                              int num_tokens) {
  const Clock::time_point start = Clock::now();
  for (const std::string& prompt : prompts) {
    QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, llm.tokenizer().encode(prompt, {}));
    Detokenizer detokenizer(llm.tokenizer());
    for (int i = 0; i < num_tokens; ++i) detokenizer.push(tokens[i % tokens.size()]);
    detokenizer.finish();
  }
  return seconds_since(start);
}

void print_times(const char* what, const PairedTimes& times) {
  std::printf("  %-22s on %8.1f ms, off %8.1f ms: off takes %.3f times as long (%.3f to %.3f)\n",
              what,
              1e3 * times.first,
              1e3 * times.second,
              times.ratio,
              times.ratio_low,
              times.ratio_high);
}

Result<Json> compare_workload(Llm& on,
                              Llm& off,
                              const StringWorkload& workload,
                              const ComparisonSettings& settings) {
  QUIRE_ASSIGN_OR_RETURN(const std::vector<std::string> prompts,
                         make_prompts(on, workload, settings.seed));
  std::vector<double> first_text[2];
  const auto way = [&](Llm& llm, std::vector<double>& first) {
    return [&]() -> Result<double> {
      QUIRE_ASSIGN_OR_RETURN(const Run run, run_once(llm, prompts, workload.answer_tokens));
      first.push_back(run.first_text);
      return run.seconds;
    };
  };
  QUIRE_ASSIGN_OR_RETURN(
      const PairedTimes total,
      compare_in_turns(settings.rounds, way(on, first_text[0]), way(off, first_text[1])));
  for (std::vector<double>& first : first_text) first.erase(first.begin());  // unmeasured
  const PairedTimes first = paired_times(first_text[0], first_text[1]);
  QUIRE_ASSIGN_OR_RETURN(const double strings, string_seconds(on, prompts, workload.answer_tokens));
  const double rates[] = {workload.num_requests / total.first,
                          workload.num_requests / total.second};
  std::printf("%s: %d requests at once\n", workload.name, workload.num_requests);
  print_times("all answers", total);
  print_times("first text, mean", first);
  std::printf("  requests/s: on %.2f, off %.2f; strings alone take %.1f ms, %.2f %% of off\n",
              rates[0],
              rates[1],
              1e3 * strings,
              100 * strings / total.second);
  std::fflush(stdout);
  return Json{{"workload", workload.name},
              {"requests", workload.num_requests},
              {"prompt_tokens", workload.prompt_tokens},
              {"answer_tokens", workload.answer_tokens},
              {"on_requests_per_second", rates[0]},
              {"off_requests_per_second", rates[1]},
              {"string_seconds", strings},
              {"all_answers", to_json(total)},
              {"first_text", to_json(first)}};
}

}  // namespace

Result<Json> async_tokenize_figure(const ComparisonSettings& settings) {
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> on, load(settings, true));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> off, load(settings, false));
  const int num_threads = on->load_report().num_threads;
  std::printf("async-tokenize, measured: %s on %d threads, %d rounds\n",
              settings.model.c_str(),
              num_threads,
              settings.rounds);
  Json rows = Json::array();
  for (const StringWorkload& workload : kWorkloads) {
    QUIRE_ASSIGN_OR_RETURN(Json row, compare_workload(*on, *off, workload, settings));
    rows.push_back(std::move(row));
  }
  return Json{{"machine", settings.model + " on " + std::to_string(num_threads) + " threads"},
              {"threads", num_threads},
              {"rows", rows}};
}

}  // namespace quire
