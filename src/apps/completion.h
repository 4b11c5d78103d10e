// Shell completion scripts, made from the command line's own definition: what the parser accepts is
// what the shell offers, with nothing to keep in step by hand.
#pragma once

#include <string>
#include <string_view>

#include "apps/command_line.h"

namespace quire {

// The script that `shell` (bash, zsh or fish) reads to complete `line`, its subcommands at any
// depth and their options. Values of an option restricted to a set (one_of(), or a type_name in
// braces) are completed from it, a positional MODEL from the model cache, anything else as file
// names. Hidden options (group "") are left out. The program's name is
// that of `line`.
Result<std::string> completion_script(const CommandLine& line, std::string_view shell);

}  // namespace quire
