// Lines of standard input: with editing and a history file on a terminal, as they are otherwise.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/status.h"

namespace quire {

class LineReader {
 public:
  LineReader();
  bool on_terminal() const { return terminal_; }
  // The next line; nullopt at the end: end of file, or the second Ctrl-C in a row at the prompt
  // (the first one clears the line and says so). The line is in the history file when this returns.
  std::optional<std::string> next();

 private:
  void save_history() const;

  bool terminal_;
  std::filesystem::path history_file_;  // empty: none
};

}  // namespace quire
