#include "apps/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <vector>

namespace quire {
namespace {

struct OptionEntry {
  std::vector<std::string> long_names, short_names;  // without dashes
  std::string description;                           // one line
  bool takes_value = false;
  std::vector<std::string> choices;  // empty: any value

  // All names as typed: "--threads", "-t".
  std::vector<std::string> flags() const {
    std::vector<std::string> all;
    for (const std::string& name : long_names) all.push_back("--" + name);
    for (const std::string& name : short_names) all.push_back("-" + name);
    return all;
  }
};

struct CommandEntry {
  std::string path;  // "quire bench model"
  std::string name;  // "model"
  std::string description;
  std::vector<OptionEntry> options;
  bool takes_model = false;      // has a positional argument MODEL
  std::vector<size_t> children;  // indices into the list of all commands
};

using Commands = std::vector<CommandEntry>;

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string joined;
  for (const std::string& word : words) {
    if (!joined.empty()) joined += separator;
    joined += word;
  }
  return joined;
}

// The words of "TEXT:{a,b}" or "{a->1,b->2} OR {1,2}", which is how CLI11 names the type of a value
// restricted to a set; only words that need no quoting in a shell.
std::vector<std::string> choices_of(const std::string& type_name) {
  const size_t open = type_name.find('{');
  const size_t close = type_name.find('}', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return {};
  std::vector<std::string> choices;
  std::string word;
  for (size_t i = open + 1; i <= close; ++i) {
    if (i < close && type_name[i] != ',') {
      word += type_name[i];
      continue;
    }
    word = word.substr(0, word.find("->"));
    const bool plain = std::all_of(word.begin(), word.end(), [](unsigned char c) {
      return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == '+';
    });
    if (plain && !word.empty()) choices.push_back(word);
    word.clear();
  }
  return choices;
}

std::vector<OptionEntry> options_of(const CLI::App& app) {
  std::vector<OptionEntry> options;
  for (const CLI::Option* option : app.get_options({})) {
    OptionEntry entry;
    entry.long_names = option->get_lnames();
    entry.short_names = option->get_snames();
    entry.description = first_line(option->get_description());
    entry.takes_value = option->get_items_expected_max() > 0;
    entry.choices = choices_of(option->get_type_name());
    const bool positional = entry.flags().empty();
    if (!positional && !option->get_group().empty()) options.push_back(std::move(entry));
  }
  return options;
}

// Appends `app` and everything below it; returns the index of its entry.
size_t collect(const CLI::App& app, const std::string& path, Commands& commands) {
  const size_t index = commands.size();
  commands.push_back({path, app.get_name(), first_line(app.get_description()), {}});
  commands[index].takes_model = app.get_option_no_throw("MODEL") != nullptr;
  commands[index].options = options_of(app);
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    const size_t at = collect(*child, path + " " + child->get_name(), commands);
    commands[index].children.push_back(at);
  }
  return index;
}

// 'text' in single quotes, `quote` being how the shell writes a single quote inside them.
std::string quoted(const std::string& text, std::string_view quote) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += quote;
    } else {
      out += c;
    }
  }
  return out + "'";
}

// Lists the names in the model cache (model/resolve.cc): what MODEL may be besides a path.
constexpr std::string_view kListModels =
    "ls \"${XDG_CACHE_HOME:-$HOME/.cache}/quire/models\" 2>/dev/null | sed -n 's/\\.gguf$//p'";

constexpr std::string_view kPosixQuote = "'\\''";
constexpr std::string_view kFishQuote = "\\'";

// The paths of all subcommands as patterns of a shell's `case`: 'quire run'|'quire bench model'.
std::string path_patterns(const Commands& commands, std::string_view separator) {
  std::vector<std::string> patterns;
  for (const CommandEntry& command : commands) {
    if (&command != &commands.front()) patterns.push_back("'" + command.path + "'");
  }
  return patterns.empty() ? "''" : join(patterns, separator);
}

// Walks the words before the cursor to find which command they name, then offers values after an
// option that takes one, options after a dash, and otherwise subcommands. Where nothing is offered,
// `-o default` completes file names.
std::string bash_script(const Commands& commands) {
  const std::string& program = commands.front().name;
  std::string values, words;
  for (const CommandEntry& command : commands) {
    std::vector<std::string> offered;
    for (const OptionEntry& option : command.options) {
      for (const std::string& flag : option.flags()) offered.push_back(flag);
      if (!option.takes_value) continue;
      std::vector<std::string> patterns;
      for (const std::string& flag : option.flags()) {
        patterns.push_back("'" + command.path + " " + flag + "'");
      }
      values += "    " + join(patterns, "|") + ") values='" + join(option.choices, " ") +
                "'; is_value=yes ;;\n";
    }
    std::vector<std::string> children;
    for (const size_t child : command.children) children.push_back(commands[child].name);
    words += "    '" + command.path + "') options='" + join(offered, " ") + "'; commands='" +
             join(children, " ") + "'; models=" + (command.takes_model ? "yes" : "") + " ;;\n";
  }
  const std::string function = "_" + program + "_complete";
  return "# bash completion of " + program + "\n" + function +
         "() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
         "  local path='" +
         program +
         "' options= commands= models= values= is_value= i\n"
         "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
         "    case \"$path ${COMP_WORDS[i]}\" in\n"
         "    " +
         path_patterns(commands, "|") +
         ") path+=\" ${COMP_WORDS[i]}\" ;;\n"
         "    esac\n"
         "  done\n"
         "  COMPREPLY=()\n"
         "  case \"$path $previous\" in\n" +
         values +
         "  esac\n"
         "  case \"$path\" in\n" +
         words +
         "  esac\n"
         "  if [[ -n $is_value ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$values\" -- \"$current\"))\n"
         "  elif [[ $current == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$options\" -- \"$current\"))\n"
         "  elif [[ -n $models ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$(" +
         std::string(kListModels) +
         ")\" -- \"$current\"))\n"
         "  else\n"
         "    COMPREPLY=($(compgen -W \"$commands\" -- \"$current\"))\n"
         "  fi\n"
         "}\n"
         "complete -o default -F " +
         function + " " + program + "\n";
}

// A description inside zsh's _arguments, where brackets and colons have a meaning.
std::string zsh_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("[]:\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

// One _arguments specification for each name of an option.
std::string zsh_options(const CommandEntry& command) {
  std::string out;
  for (const OptionEntry& option : command.options) {
    std::string tail = "[" + zsh_escaped(option.description) + "]";
    if (option.takes_value) {
      tail +=
          option.choices.empty() ? ":value:_files" : ":value:(" + join(option.choices, " ") + ")";
    }
    for (const std::string& flag : option.flags()) {
      out += " \\\n      " + quoted(flag + tail, kPosixQuote);
    }
  }
  return out;
}

std::string zsh_script(const Commands& commands) {
  const std::string& program = commands.front().name;
  std::string cases;
  for (const CommandEntry& command : commands) {
    cases += "    '" + command.path + "')";
    if (!command.children.empty()) {
      cases += "\n      local -a commands=(";
      for (const size_t child : command.children) {
        const CommandEntry& entry = commands[child];
        cases +=
            "\n        " + quoted(entry.name + ":" + zsh_escaped(entry.description), kPosixQuote);
      }
      cases += ")\n      [[ ${words[CURRENT]} == -* ]] || _describe command commands\n     ";
    }
    cases += " _arguments" + zsh_options(command);
    cases += std::string(" \\\n      ");
    if (command.takes_model) {
      cases += "'*:model:{ compadd -- ${(f)\"$(_" + program + "_models)\"}; _files }'";
    } else {
      cases += command.children.empty() ? "'*:file:_files'" : "'*: :'";
    }
    cases += " ;;\n";
  }
  return "#compdef " + program + "\n_" + program + "_models() {\n  " + std::string(kListModels) +
         "\n}\n_" + program +
         "() {\n"
         "  local command_path='" +
         program +
         "'\n"
         "  integer i\n"
         "  for ((i = 2; i < CURRENT; ++i)); do\n"
         "    case \"$command_path ${words[i]}\" in\n"
         "    " +
         path_patterns(commands, "|") +
         ") command_path+=\" ${words[i]}\" ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"$command_path\" in\n" +
         cases +
         "  esac\n"
         "}\n"
         "compdef _" +
         program + " " + program + "\n";
}

std::string fish_option(const OptionEntry& option) {
  std::string out;
  for (const std::string& name : option.long_names) out += " -l " + name;
  for (const std::string& name : option.short_names) {
    out += (name.size() == 1 ? " -s " : " -o ") + name;
  }
  if (option.takes_value) out += option.choices.empty() ? " -r -F" : " -x";
  if (!option.choices.empty()) out += " -a " + quoted(join(option.choices, " "), kFishQuote);
  return out + " -d " + quoted(option.description, kFishQuote) + "\n";
}

std::string fish_script(const Commands& commands) {
  const std::string& program = commands.front().name;
  const std::string path_function = "__" + program + "_path";
  std::string out = "# fish completion of " + program + "\nfunction " + path_function +
                    "\n"
                    "  set -l path '" +
                    program +
                    "'\n"
                    "  for word in (commandline -opc)[2..-1]\n"
                    "    switch \"$path $word\"\n"
                    "      case " +
                    path_patterns(commands, " ") +
                    "\n"
                    "        set path \"$path $word\"\n"
                    "    end\n"
                    "  end\n"
                    "  echo $path\n"
                    "end\n"
                    "function __" +
                    program +
                    "_models\n"
                    "  set -q XDG_CACHE_HOME; or set -l XDG_CACHE_HOME $HOME/.cache\n"
                    "  ls $XDG_CACHE_HOME/quire/models 2>/dev/null | string replace -rf "
                    "'\\.gguf$' ''\n"
                    "end\n";
  for (const CommandEntry& command : commands) {
    const std::string start =
        "complete -c " + program + " -n 'test (" + path_function + ") = \"" + command.path + "\"'";
    for (const size_t child : command.children) {
      out += start + " -f -a " + commands[child].name + " -d " +
             quoted(commands[child].description, kFishQuote) + "\n";
    }
    if (command.takes_model) {
      out += start + " -a '(__" + program + "_models)' -d 'in the model cache'\n";
    }
    for (const OptionEntry& option : command.options) out += start + fish_option(option);
  }
  return out;
}

}  // namespace

Result<std::string> completion_script(const CommandLine& line, std::string_view shell) {
  Commands commands;
  collect(line.app(), line.app().get_name(), commands);
  if (shell == "bash") return bash_script(commands);
  if (shell == "zsh") return zsh_script(commands);
  if (shell == "fish") return fish_script(commands);
  return invalid_argument("no completion for shell '" + std::string(shell) +
                          "'; supported are bash, zsh and fish");
}

}  // namespace quire
