#include "cli/quire_process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <thread>

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

// Replaces this process, which is a fresh child.
[[noreturn]] void become(const std::string& program,
                         const Arguments& arguments,
                         const Environment& environment) {
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  execv(program.c_str(), argv.data());
  _exit(127);
}

int open_or_die(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  EXPECT_GE(fd, 0) << path;
  return fd;
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + kPatience;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

int wait_for(pid_t child) {
  int status = 0;
  const bool ended = eventually([&] { return waitpid(child, &status, WNOHANG) == child; });
  if (!ended) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    ADD_FAILURE() << "quire did not end within " << kPatience.count() << " s";
    return -1;
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

CliTest::CliTest() {
  std::string name = (std::filesystem::temp_directory_path() / "quire-cli-XXXXXX").string();
  EXPECT_NE(mkdtemp(name.data()), nullptr);
  folder_ = name;
}

CliTest::~CliTest() { std::filesystem::remove_all(folder_); }

Environment CliTest::environment() const {
  return {{"HOME", folder_.string()},
          {"XDG_STATE_HOME", path("state")},
          {"XDG_CACHE_HOME", path("cache")},
          {"HF_HOME", path("hf")},
          {"TERM", "dumb"},
          {"LC_ALL", "C"}};
}

pid_t CliTest::start(const Arguments& arguments, int in, int out, int err) const {
  const Environment environment = this->environment();
  const pid_t child = fork();
  if (child == 0) {
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    become(QUIRE_BINARY, arguments, environment);
  }
  return child;
}

Outcome CliTest::quire(const Arguments& arguments,
                       const std::string& input,
                       const std::string& out) const {
  write_file(path("stdin"), input);
  const int in_fd = open_or_die(path("stdin"), O_RDONLY);
  const int out_fd = out.empty() ? open_or_die(path("stdout"), O_WRONLY | O_CREAT | O_TRUNC)
                                 : open_or_die(out, O_WRONLY);
  const int err_fd = open_or_die(path("stderr"), O_WRONLY | O_CREAT | O_TRUNC);
  const pid_t child = start(arguments, in_fd, out_fd, err_fd);
  for (const int fd : {in_fd, out_fd, err_fd}) close(fd);
  Outcome outcome;
  outcome.exit_code = wait_for(child);
  if (out.empty()) outcome.out = read_file(path("stdout"));
  outcome.err = read_file(path("stderr"));
  return outcome;
}

Outcome CliTest::shell(const std::string& command) const {
  Environment environment = this->environment();
  environment["QUIRE"] = QUIRE_BINARY;
  environment["MODEL"] = tiny();
  const int out_fd = open_or_die(path("stdout"), O_WRONLY | O_CREAT | O_TRUNC);
  const int err_fd = open_or_die(path("stderr"), O_WRONLY | O_CREAT | O_TRUNC);
  const pid_t child = fork();
  if (child == 0) {
    dup2(out_fd, STDOUT_FILENO);
    dup2(err_fd, STDERR_FILENO);
    become("/bin/sh", {"-c", command}, environment);
  }
  for (const int fd : {out_fd, err_fd}) close(fd);
  Outcome outcome;
  outcome.exit_code = wait_for(child);
  outcome.out = read_file(path("stdout"));
  outcome.err = read_file(path("stderr"));
  return outcome;
}

std::string CliTest::endless_model() const {
  const std::filesystem::path model = folder_ / "endless";
  std::filesystem::copy(tiny(), model);
  std::string config = read_file(model / "config.json");
  const std::string field = "\"max_position_embeddings\": ";
  const size_t at = config.find(field + "256");
  EXPECT_NE(at, std::string::npos);
  config.replace(at, field.size() + 3, field + "1000000");
  write_file(model / "config.json", config);
  return model.string();
}

Terminal::Terminal(const Arguments& arguments, const Environment& environment) {
  const winsize size = {.ws_row = 50, .ws_col = 200};
  child_ = forkpty(&fd_, nullptr, nullptr, &size);
  EXPECT_GE(child_, 0);
  if (child_ == 0) become(QUIRE_BINARY, arguments, environment);
}

Terminal::~Terminal() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  close(fd_);
}

bool Terminal::read_more(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd poller = {.fd = fd_, .events = POLLIN};
  if (left.count() <= 0 || poll(&poller, 1, static_cast<int>(left.count())) <= 0) return false;
  char buffer[4096];
  const ssize_t count = read(fd_, buffer, sizeof buffer);  // EIO: the child has gone
  if (count > 0) screen_.append(buffer, static_cast<size_t>(count));
  return count > 0;
}

testing::AssertionResult Terminal::expect(const std::string& text) {
  const auto deadline = Clock::now() + kPatience;
  for (;;) {
    const size_t at = screen_.find(text, seen_);
    if (at != std::string::npos) {
      seen_ = at + text.size();
      return testing::AssertionSuccess();
    }
    if (!read_more(deadline)) {
      return testing::AssertionFailure()
             << "\"" << text << "\" did not come; after what was awaited before came:\n"
             << testing::PrintToString(screen_.substr(seen_).substr(0, 2000));
    }
  }
}

testing::AssertionResult Terminal::expect_prompt() {
  const testing::AssertionResult printed = expect("> ");
  if (!printed) return printed;
  const auto edits = [&] {
    termios mode = {};
    return tcgetattr(fd_, &mode) == 0 && (mode.c_lflag & ICANON) == 0;
  };
  if (eventually(edits)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "the line editor did not start";
}

testing::AssertionResult Terminal::expect_bytes(size_t count) {
  const auto deadline = Clock::now() + kPatience;
  while (screen_.size() < seen_ + count) {
    if (!read_more(deadline)) return testing::AssertionFailure() << "too little came";
  }
  seen_ = screen_.size();
  return testing::AssertionSuccess();
}

void Terminal::type(const std::string& keys) {
  EXPECT_EQ(write(fd_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
}

void Terminal::kill(int signal) { ::kill(child_, signal); }

int Terminal::wait() {
  const auto deadline = Clock::now() + kPatience;
  while (read_more(deadline)) {  // a child whose output nobody reads may block
  }
  const int code = wait_for(child_);
  child_ = -1;
  return code;
}

}  // namespace quire
