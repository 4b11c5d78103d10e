#include "apps/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace quire {
namespace {

std::atomic<int> interrupts{0};  // written by the signal handler: lock-free

void on_interrupt(int) {
  // A second Ctrl-C while the first is still unanswered ends the process.
  if (interrupts.fetch_add(1) >= 1) _exit(130);
}

}  // namespace

void Interrupt::install() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}
bool Interrupt::requested() { return interrupts.load() > 0; }
void Interrupt::clear() { interrupts.store(0); }

std::string format_double(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string human_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return format_double(value, unit == 0 ? 0 : 1) + " " + kUnits[unit];
}

std::string human_count(int64_t count) {
  if (count >= 1'000'000'000) return format_double(count / 1e9, 2) + " B";
  if (count >= 1'000'000) return format_double(count / 1e6, 1) + " M";
  if (count >= 1'000) return format_double(count / 1e3, 1) + " k";
  return std::to_string(count);
}

ProgressBar::ProgressBar(std::string name, int64_t total)
    : name_(std::move(name)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()) {}

void ProgressBar::update(int64_t done, const std::string& note) {
  const auto now = std::chrono::steady_clock::now();
  const auto interval = std::chrono::milliseconds(terminal_ ? 100 : 10'000);
  if (now - drawn_ < interval) return;
  drawn_ = now;
  draw(done, note);
}

void ProgressBar::finish(const std::string& note) {
  draw(total_, note);
  if (terminal_) std::fputc('\n', stderr);
}

void ProgressBar::draw(int64_t done, const std::string& note) {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  std::string eta;
  if (done > 0 && done < total_) {
    const int left = static_cast<int>(elapsed.count() / done * (total_ - done));
    char text[32];
    std::snprintf(text, sizeof text, "  ETA %d:%02d", left / 60, left % 60);
    eta = text;
  }
  constexpr int kWidth = 30;
  const int filled = total_ > 0 ? static_cast<int>(kWidth * std::min(done, total_) / total_) : 0;
  const std::string bar = std::string(filled, '=') + std::string(kWidth - filled, ' ');
  std::fprintf(stderr,
               terminal_ ? "\r\033[K%s [%s] %lld/%lld  %s%s" : "%s [%s] %lld/%lld  %s%s\n",
               name_.c_str(),
               bar.c_str(),
               static_cast<long long>(done),
               static_cast<long long>(total_),
               note.c_str(),
               eta.c_str());
}

}  // namespace quire
