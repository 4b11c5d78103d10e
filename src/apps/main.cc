// quire: the command line.
#include <algorithm>
#include <cstdio>
#include <string>
#include <system_error>
#include <vector>

#include "apps/command.h"
#include "apps/terminal.h"
#include "base/mutants.h"
#include "base/status.h"

namespace {

struct Entry {
  const char* name;
  const char* help;
  quire::Command (*add)(quire::CommandLine);
};

constexpr Entry kCommands[] = {
    {"run", "answer one prompt", quire::add_run_command},
    {"chat", "hold a conversation on the terminal", quire::add_chat_command},
    {"generate",
     "answer a file of prompts; a killed run can be resumed",
     quire::add_generate_command},
    {"serve", "answer over HTTP, as OpenAI's API does", quire::add_serve_command},
    {"bench", "measure a model next to this machine's limits", quire::add_bench_command},
    {"perplexity",
     "perplexity of a text, KL divergence from reference logits",
     quire::add_perplexity_command},
    {"info", "what a model is made of", quire::add_info_command},
    {"plan",
     "every byte a model and these flags will take, and what does not fit",
     quire::add_plan_command},
    {"tokenize", "text to token ids", quire::add_tokenize_command},
    {"detokenize", "token ids to text", quire::add_detokenize_command},
    {"devices", "the CPU, its instruction sets, cores and memory", quire::add_devices_command},
    {"completion", "print a shell completion script", quire::add_completion_command},
};

// The command's own errors are Status; an exception is the standard library's word for a limit of
// the system, or a bug.
quire::Status run_command(const quire::Command& command) {
  try {
    return command();
  } catch (const std::bad_alloc&) {
    return quire::resource_exhausted("out of memory: give the process more, or a smaller model");
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      return quire::resource_exhausted("the system allows no further thread: lower --threads");
    }
    return quire::internal_error(error.what());
  } catch (const std::exception& error) {
    return quire::internal_error(std::string("internal error: ") + error.what());
  }
}

// Prints what went wrong; the process's exit code. What was printed must have been received.
int finish(quire::Status status) {
  const quire::Status flushed = quire::flush_stdout();
  if (status.ok() && !quire::mutant("cli_ignores_stdout_errors")) status = flushed;
  if (!status.ok()) std::fprintf(stderr, "quire: %s\n", status.message().c_str());
  return static_cast<int>(status.code());
}

}  // namespace

int main(int argc, char** argv) {
  quire::CommandLine line("quire", "quire: an LLM inference engine", QUIRE_VERSION);
  line.needs_subcommand();
  line.footer(
      "Exit codes: 0 ok, 1 internal error, 2 bad argument, 3 not found, 4 damaged file, 5 not "
      "supported, 6 out of memory or capacity, 7 I/O error, 130 interrupted.");
  std::vector<std::pair<quire::CommandLine, quire::Command>> commands;
  for (const Entry& entry : kCommands) {
    quire::CommandLine sub = line.subcommand(entry.name, entry.help);
    commands.emplace_back(sub, entry.add(sub));
  }
  quire::Interrupt::install();
  const auto help = line.parse(std::vector<std::string>(argv + 1, argv + argc));
  if (!help.ok()) return finish(help.status());
  if (*help) return finish(quire::write_stdout(**help));
  for (const auto& [sub, command] : commands) {
    if (sub.parsed()) return finish(run_command(command));
  }
  return 0;
}
