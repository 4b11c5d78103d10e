// quire run: one prompt, one answer, one line of figures.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/engine_flags.h"
#include "apps/report.h"
#include "apps/sampling_flags.h"
#include "apps/terminal.h"
#include "base/files.h"

namespace quire {
namespace {

struct RunFlags {
  LlmConfig llm;
  SamplingFlags sampling;
  std::string prompt, prompt_file, system;
  bool raw = false, json = false;
};

Result<std::string> read_prompt(const RunFlags& flags) {
  if (!flags.prompt.empty() && flags.prompt != "-") return flags.prompt;
  if (flags.prompt_file.empty() && flags.prompt.empty()) {
    return invalid_argument("no prompt: give -p TEXT, -f FILE, or -p - to read standard input");
  }
  QUIRE_ASSIGN_OR_RETURN(
      std::string text,
      read_whole_file(flags.prompt == "-" ? "-" : flags.prompt_file, "the prompt"));
  if (text.empty()) return invalid_argument("the prompt is empty");
  return text;
}

GenerateRequest make_request(const Llm& llm, const RunFlags& flags, const std::string& prompt) {
  GenerateRequest request;
  request.id = "run";
  if (flags.raw || !llm.has_chat_template()) {
    request.prompt = prompt;
  } else {
    ChatPrompt chat;
    if (!flags.system.empty()) chat.messages.push_back({"system", flags.system});
    chat.messages.push_back({"user", prompt});
    request.prompt = std::move(chat);
  }
  request.sampling = flags.sampling.over(llm.default_sampling());
  request.output = flags.sampling.output();
  return request;
}

// Several answers would mix if they were streamed: each is written whole, under its number.
Status write_answers(const std::vector<TextDelta>& answers) {
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string title =
        "[" + std::to_string(i + 1) + " of " + std::to_string(answers.size()) + "]\n";
    QUIRE_RETURN_IF_ERROR(write_stdout(title + answers[i].text + "\n"));
  }
  return {};
}

Status run(const RunFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const std::string prompt, read_prompt(flags));
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<Llm> llm, Llm::load(flags.llm));
  Result<TextStream> submitted = llm->submit(make_request(*llm, flags, prompt));
  if (!submitted.ok()) return with_flag_names(submitted.status());
  TextStream& stream = *submitted;

  std::vector<TextDelta> answers(flags.sampling.n.value_or(1));
  while (!stream.finished()) {
    if (Interrupt::requested()) stream.cancel();
    const std::optional<TextDelta> delta = stream.next_for(std::chrono::milliseconds(100));
    if (!delta) continue;
    if (delta->finish_reason == FinishReason::kError) return with_flag_names(delta->error);
    answers[delta->index].append(*delta);
    // With nobody to read it, the rest of the answer is not computed: the stream's end cancels it.
    const bool streams = !flags.json && answers.size() == 1;
    if (streams) QUIRE_RETURN_IF_ERROR(write_stdout(delta->text));
  }
  if (flags.json) {
    Json result = answers_json(answers, stream, llm->tokenizer());
    result["load_seconds"] = llm->load_report().seconds;
    QUIRE_RETURN_IF_ERROR(write_stdout(dump_json(result) + "\n"));
  } else {
    QUIRE_RETURN_IF_ERROR(answers.size() == 1 ? write_stdout("\n") : write_answers(answers));
    std::fprintf(stderr, "%s\n", figures_line(stream.stats(), *llm).c_str());
  }
  return Interrupt::requested() ? cancelled("interrupted") : Status();
}

}  // namespace

Command add_run_command(CommandLine line) {
  auto flags = std::make_shared<RunFlags>();
  add_model_argument(line, flags->llm);
  line.option("-p,--prompt", flags->prompt, "the prompt; - reads standard input");
  line.option(
          "-f,--file", flags->prompt_file, "read the prompt from this file; - is standard input")
      .excludes("-p");
  line.option("--system", flags->system, "system message");
  line.flag("--raw", flags->raw, "give the text to the model as it is, without the chat template");
  line.flag("--json",
            flags->json,
            "print one JSON object: text, token ids, finish reason, usage, timings");
  add_sampling_flags(line, flags->sampling);
  add_answer_count_flags(line, flags->sampling);
  add_engine_flags(line, flags->llm);
  return [flags] { return run(*flags); };
}

}  // namespace quire
