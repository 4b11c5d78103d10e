// Shell completion scripts, made from the command line's own definition: what the parser accepts is
// what the shell offers, with nothing to keep in step by hand.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace quire {

// The script that `shell` (bash, zsh or fish) reads to complete `app`, its subcommands at any depth
// and their options. Values of an option restricted to a set (CLI::IsMember, or a type_name in
// braces) are completed from it, a positional MODEL from the model cache, anything else as file
// names. Hidden options and subcommands (group "") are left out. The program's name is
// app.get_name().
Result<std::string> completion_script(const CLI::App& app, std::string_view shell);

}  // namespace quire
