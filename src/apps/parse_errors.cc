#include "apps/parse_errors.h"

#include <CLI/CLI.hpp>

#include "apps/sampling_flags.h"

namespace quire {
namespace {

std::vector<const CLI::App*> children(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// "quire bench model"
std::string full_name(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name()
                                     : full_name(*app.get_parent()) + " " + app.get_name();
}

std::string suggestion(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = nearest(word, known);
  return near.empty() ? "" : "did you mean " + near + "? ";
}

std::string see_help(const CLI::App& app) { return full_name(app) + " --help"; }

// The innermost command that was being parsed.
const CLI::App& innermost(const CLI::App& app) {
  const std::vector<CLI::App*> parsed = app.get_subcommands();
  return parsed.empty() ? app : innermost(*parsed.back());
}

Status unknown_argument(const CLI::App& command, const std::string& word) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options({})) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  // A flag may come as --flag=value.
  const std::string flag = word.substr(0, word.find('='));
  return invalid_argument("unknown argument \"" + word + "\"; " +
                          (word[0] == '-' ? suggestion(flag, flags) : "") + see_help(command) +
                          " lists the arguments");
}

}  // namespace

Status check_command_words(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  for (const std::string& word : words) {
    const std::vector<const CLI::App*> known = children(*command);
    if (known.empty() || word.starts_with("-")) return {};
    std::vector<std::string> names;
    std::string list;
    const CLI::App* chosen = nullptr;
    for (const CLI::App* child : known) {
      names.push_back(child->get_name());
      list += (list.empty() ? "" : ", ") + child->get_name();
      if (child->get_name() == word) chosen = child;
    }
    if (chosen == nullptr) {
      return invalid_argument("unknown command \"" + word + "\"; " + suggestion(word, names) +
                              "The commands are " + list + "; see " + see_help(*command));
    }
    command = chosen;
  }
  return {};
}

Status explain_parse_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = innermost(app);
  const std::vector<const CLI::App*> known = children(command);
  if (!known.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    std::string list;
    for (const CLI::App* child : known) list += (list.empty() ? "" : ", ") + child->get_name();
    return invalid_argument(full_name(command) + " needs a command: " + list + "; see " +
                            see_help(command));
  }
  // CLI11 looks for what is missing first, but a flag misspelt explains more.
  const std::vector<std::string> rest = app.remaining(true);
  const bool extra = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  if (!rest.empty() && (extra || rest.front().starts_with("-"))) {
    return unknown_argument(command, rest.front());
  }
  return invalid_argument(std::string(error.what()) + "; see " + see_help(command));
}

}  // namespace quire
