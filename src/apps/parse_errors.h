// What is wrong with a command line, in quire's words: the value, what is allowed, the remedy.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace quire {

// Refuses a first word that is no command of `app` (and so on below), and a command line without
// one.
Status check_command_words(const CLI::App& app, const std::vector<std::string>& words);

// `error` came out of app.parse().
Status explain_parse_error(const CLI::App& app, const CLI::ParseError& error);

}  // namespace quire
