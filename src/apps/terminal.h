// What the commands share: interruption, progress on a terminal, human numbers.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace quire {

// Ctrl-C. The first sets a flag that commands look at; with none looking for two in a row, the
// process ends.
class Interrupt {
 public:
  static void install();  // SIGINT -> the flag; SIGPIPE ignored
  static bool requested();
  static void clear();
};

std::string human_bytes(int64_t bytes);  // "93.8 MiB"
std::string human_count(int64_t count);  // "134.5 M"
std::string format_double(double value, int decimals);

// "name  [=====>     ]  12/40  183 tok/s  ETA 0:07": redrawn in place on a terminal, a plain line
// every ten seconds otherwise. Writes to stderr.
class ProgressBar {
 public:
  ProgressBar(std::string name, int64_t total);
  void update(int64_t done, const std::string& note);
  void finish(const std::string& note);

 private:
  void draw(int64_t done, const std::string& note);

  std::string name_;
  int64_t total_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_, drawn_{};
};

}  // namespace quire
