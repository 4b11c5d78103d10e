#include "apps/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace quire {
namespace {

// Written by the signal handler: lock-free.
std::atomic<int> interrupts{0};
std::atomic<bool> may_exit{true};
// The handler writes a byte, so that poll() sees an interrupt whichever thread the signal hit.
int wake_pipe[2] = {-1, -1};

void on_interrupt(int) {
  // A second Ctrl-C while the first is still unanswered ends the process.
  if (interrupts.fetch_add(1) >= 1 && may_exit.load()) _exit(130);
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = write(wake_pipe[1], "", 1);  // full: it wakes anyway
  errno = saved;
}

}  // namespace

void Interrupt::install() {
  if (wake_pipe[0] < 0 && pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) != 0) wake_pipe[0] = -1;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;  // a write to a slow terminal must not fail with EINTR
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}
bool Interrupt::requested() { return interrupts.load() > 0; }
void Interrupt::clear() {
  interrupts.store(0);  // before the bytes: an interrupt in between stays requested
  char bytes[64];
  while (read(wake_pipe[0], bytes, sizeof bytes) > 0) {
  }
}
void Interrupt::never_exit() { may_exit.store(false); }

bool Interrupt::wait_readable(int fd) {
  while (!requested()) {
    pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = wake_pipe[0], .events = POLLIN}};
    if (poll(fds, 2, -1) > 0 && !requested() && fds[0].revents != 0) return true;
  }
  return false;
}

namespace {

Status stdout_error(int error) {
  return unavailable("cannot write standard output" +
                     (error != 0 ? ": " + std::string(std::strerror(error)) : ""));
}

}  // namespace

Status write_stdout(std::string_view text) {
  errno = 0;
  const size_t written = std::fwrite(text.data(), 1, text.size(), stdout);
  return written == text.size() && std::fflush(stdout) == 0 ? Status() : stdout_error(errno);
}

Status flush_stdout() {
  errno = 0;
  return std::fflush(stdout) == 0 && !std::ferror(stdout) ? Status() : stdout_error(errno);
}

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
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

std::string eta_text(double elapsed_seconds, int64_t done, int64_t already, int64_t total) {
  if (done <= already || done >= total) return "";
  const auto left = static_cast<int64_t>(elapsed_seconds / (done - already) * (total - done));
  char text[48];
  std::snprintf(text,
                sizeof text,
                "  ETA %lld:%02d",
                static_cast<long long>(left / 60),
                static_cast<int>(left % 60));
  return text;
}

void ProgressBar::update(int64_t done, const std::string& note, int64_t already) {
  const auto now = std::chrono::steady_clock::now();
  const auto interval = std::chrono::milliseconds(terminal_ ? 100 : 10'000);
  if (now - drawn_ < interval) return;
  drawn_ = now;
  const std::chrono::duration<double> elapsed = now - start_;
  draw(done, note, eta_text(elapsed.count(), done, already, total_));
}

void ProgressBar::finish(int64_t done, const std::string& note) {
  draw(done, note, "");
  if (terminal_) std::fputc('\n', stderr);
}

void ProgressBar::draw(int64_t done, const std::string& note, const std::string& eta) {
  const auto count = static_cast<long long>(done), total = static_cast<long long>(total_);
  if (!terminal_) {
    std::fprintf(
        stderr, "%s: %lld of %lld, %s%s\n", name_.c_str(), count, total, note.c_str(), eta.c_str());
    return;
  }
  constexpr int kWidth = 30;
  const int filled = total_ > 0 ? static_cast<int>(kWidth * std::min(done, total_) / total_) : 0;
  const std::string bar = std::string(filled, '=') + std::string(kWidth - filled, ' ');
  std::fprintf(stderr,
               "\r\033[K%s [%s] %lld/%lld  %s%s",
               name_.c_str(),
               bar.c_str(),
               count,
               total,
               note.c_str(),
               eta.c_str());
}

}  // namespace quire
