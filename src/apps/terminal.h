// What the commands share: interruption, progress on a terminal, human numbers.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace quire {

// Ctrl-C. The first sets a flag that commands look at; with none looking for two in a row, the
// process ends.
class Interrupt {
 public:
  static void install();  // SIGINT -> the flag; SIGPIPE ignored
  static bool requested();
  static void clear();
  // Only the flag is set from now on, however many come: for a program that owns the terminal's
  // mode and always looks at the flag.
  static void never_exit();
  // Waits until `fd` can be read; false when an interrupt came first. No race: an interrupt before
  // the call counts.
  static bool wait_readable(int fd);
};

// Standard output. Text that nobody receives is an error (exit code 7), not a silent success.
Status write_stdout(std::string_view text);  // at once
Status flush_stdout();                       // what was printed so far

std::string human_bytes(int64_t bytes);  // "93.8 MiB"
std::string human_count(int64_t count);  // "134.5 M"
std::string format_double(double value, int decimals);

// "name [=====     ] 12/40  183 tok/s  ETA 0:07", redrawn in place, on a terminal; otherwise a
// plain line every ten seconds, "name: 12 of 40, 183 tok/s". Writes to stderr.
class ProgressBar {
 public:
  ProgressBar(std::string name, int64_t total);
  // `done` of `total`, `already` of which were done before this run: they tell nothing of its
  // speed.
  void update(int64_t done, const std::string& note, int64_t already = 0);
  void finish(int64_t done, const std::string& note);  // the last state, complete or not

 private:
  void draw(int64_t done, const std::string& note, const std::string& eta);

  std::string name_;
  int64_t total_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_, drawn_;
};

// "  ETA 0:07"; empty when nothing was done yet or nothing is left.
std::string eta_text(double elapsed_seconds, int64_t done, int64_t already, int64_t total);

}  // namespace quire
