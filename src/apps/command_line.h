// A command line as a command declares it: subcommands, flags and arguments, and what is said about
// a wrong one. CLI11 does the work behind it: a header of seconds in every unit that includes it,
// so only three do (command_line.cc, parse_errors.cc, completion.cc).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace quire {

// A flag or argument that has been declared; each call adds to what it takes or what the help says.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option& required();
  Option& group(const std::string& heading);   // in the help
  Option& type_name(const std::string& name);  // in the help; "{a,b}" is completed by the shell
  Option& shows_default();                     // in the help
  Option& one_value_each();                    // of a flag that may be given several times
  Option& separated_by(char separator);        // several values in one word
  Option& excludes(const std::string& name);
  Option& human_integer();                      // 8k, 2GiB: see human_integer.h
  Option& within(int64_t least, int64_t most);  // a whole number
  Option& one_of(const std::vector<std::string>& values);

 private:
  CLI::Option* option_;
};

// A command; copies of a subcommand are the same subcommand, which lives as long as its program.
class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& help, const std::string& version = "");

  CommandLine subcommand(const std::string& name, const std::string& help);
  // `names` as in "-p,--prompt", "MODEL" (an argument), "--on,!--off" (a flag).
  // T: std::string, int, int64_t, uint64_t, double; optional<int or double>; vector<string, int or
  // int64_t>.
  template <typename T>
  Option option(const std::string& names, T& value, const std::string& help);
  // `parse` reads the value, or all values of a flag that may be given several times; what it
  // refuses ends the parsing.
  Option option(const std::string& names,
                std::function<Status(const std::string&)> parse,
                const std::string& help);
  Option options(const std::string& names,
                 std::function<Status(const std::vector<std::string>&)> parse,
                 const std::string& help);
  Option flag(const std::string& names, bool& value, const std::string& help);
  // Below the list of options in the help.
  void footer(const std::string& text);
  // Checks all values together when this command's were read.
  void when_parsed(std::function<Status()> check);
  void needs_subcommand();

  bool has(const std::string& name) const;    // an option of this name is declared
  bool given(const std::string& name) const;  // ... and was used
  bool parsed() const;                        // this subcommand was chosen
  CommandLine program() const;                // the command that all others are part of
  std::string version() const;                // what the program was made with

  // `words` without the program's name. The text of --help or --version where that was asked for;
  // an error names the word, what is allowed and the remedy.
  Result<std::optional<std::string>> parse(const std::vector<std::string>& words);

  CLI::App& app() const { return *app_; }

 private:
  explicit CommandLine(CLI::App* app) : app_(app) {}
  CLI::App* app_;
  std::shared_ptr<CLI::App> owner_;  // of the program only
};

}  // namespace quire
