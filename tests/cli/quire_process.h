// The quire binary as a child process: with files for its standard streams, or on a terminal of its
// own. Waits end when what is awaited happens; the timeout only bounds a failure.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace quire {

constexpr std::chrono::seconds kPatience{60};  // sanitizer builds on a busy machine

using Arguments = std::vector<std::string>;
using Environment = std::map<std::string, std::string>;

std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, const std::string& text);
// Looks at `condition` again and again until it holds; false after kPatience.
bool eventually(const std::function<bool()>& condition);

struct Outcome {
  int exit_code = -1;  // 128 + signal when a signal ended it, -1 when it had to be killed
  std::string out, err;
};

// A fixture with a folder that is HOME to every child, and the tiny models.
class CliTest : public testing::Test {
 protected:
  CliTest();
  ~CliTest() override;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  // Runs quire to its end. `out`: a path for standard output, whose text then is not returned.
  Outcome quire(const Arguments& arguments,
                const std::string& input = "",
                const std::string& out = "") const;
  // Runs it in the background.
  pid_t start(const Arguments& arguments, int in, int out, int err) const;
  // Runs `command` in sh with $QUIRE, $MODEL set.
  Outcome shell(const std::string& command) const;
  Environment environment() const;

  static std::string tiny(const std::string& name = "llama_gqa") {
    return QUIRE_TESTDATA "/golden/tiny/" + name;
  }
  // A model that can answer for minutes: the same weights, with a context of a million tokens.
  std::string endless_model() const;
  // What makes its answer endless.
  static Arguments endless_flags() {
    return {"--ignore-eos", "-n", "200000", "--temperature", "0", "--kv-cache-memory-bytes", "64M"};
  }

  std::filesystem::path folder_;
};

// The exit code of a child as in Outcome; kills it when it does not end.
int wait_for(pid_t child);

// quire on a pseudo terminal of 200 columns.
class Terminal {
 public:
  Terminal(const Arguments& arguments, const Environment& environment);
  ~Terminal();
  // Waits for `text` in what was printed after the last text that was found.
  testing::AssertionResult expect(const std::string& text);
  // Waits until the line editor reads: it prints "> ", then takes the terminal over.
  testing::AssertionResult expect_prompt();
  // Waits for at least `count` more bytes.
  testing::AssertionResult expect_bytes(size_t count);
  void type(const std::string& keys);
  int wait();  // for its end; the exit code
  void kill(int signal);
  const std::string& screen() const { return screen_; }

 private:
  bool read_more(std::chrono::steady_clock::time_point deadline);

  pid_t child_ = -1;
  int fd_ = -1;
  std::string screen_;  // all that was printed
  size_t seen_ = 0;
};

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";

}  // namespace quire
