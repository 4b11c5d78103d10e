#include "apps/line_reader.h"

#include <editline/readline.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <iostream>
#include <memory>
#include <string_view>

#include "apps/terminal.h"
#include "base/mutants.h"

namespace quire {
namespace {

constexpr int kHistoryLines = 1000;

// The editor thinks in characters of the locale. quire's text is UTF-8 whatever the locale says.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

// The next character for the editor; EOF at the end of the input and when Ctrl-C was pressed. A
// read() of its own would not always be interrupted: the signal may hit any thread.
int read_character(std::FILE*) {
  std::mbstate_t state = {};
  for (;;) {
    if (!Interrupt::wait_readable(STDIN_FILENO)) return EOF;
    char byte;
    if (read(STDIN_FILENO, &byte, 1) != 1) return EOF;
    wchar_t character;
    const size_t length = std::mbrtowc(&character, &byte, 1, &state);
    if (length == static_cast<size_t>(-2)) continue;  // the beginning of one
    if (length == static_cast<size_t>(-1)) return '?';
    return static_cast<int>(character);
  }
}

std::filesystem::path history_path() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state == nullptr && home == nullptr) return {};
  const std::filesystem::path folder =
      (state ? std::filesystem::path(state) : std::filesystem::path(home) / ".local/state") /
      "quire";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? std::filesystem::path() : folder / "chat_history";
}

}  // namespace

LineReader::LineReader() : terminal_(isatty(STDIN_FILENO) != 0) {
  if (!terminal_) return;
  use_utf8();
  history_file_ = history_path();
  rl_getc_function = read_character;
  using_history();
  stifle_history(kHistoryLines);
  if (!history_file_.empty()) read_history(history_file_.c_str());
}

// Whole or not at all: a chat may be killed at any moment.
void LineReader::save_history() const {
  if (history_file_.empty()) return;
  const std::string fresh = history_file_.string() + "." + std::to_string(getpid());
  std::error_code error;
  if (write_history(fresh.c_str()) == 0) std::filesystem::rename(fresh, history_file_, error);
}

std::optional<std::string> LineReader::next() {
  std::string line;
  if (!terminal_) return std::getline(std::cin, line) ? std::optional(line) : std::nullopt;
  for (bool interrupted = false;;) {
    const std::unique_ptr<char, void (*)(void*)> text(readline("> "), std::free);
    if (text) {
      line = text.get();
      break;
    }
    if (!Interrupt::requested()) return std::nullopt;  // end of file
    Interrupt::clear();
    std::fputc('\n', stdout);
    if (interrupted || mutant("apps_interrupt_leaves")) return std::nullopt;
    interrupted = true;
    std::printf("(Ctrl-C again leaves, as /exit and Ctrl-D do)\n");
  }
  if (!line.empty()) {
    add_history(line.c_str());
    save_history();
  }
  return line;
}

}  // namespace quire
