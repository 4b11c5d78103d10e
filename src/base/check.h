// QUIRE_CHECK: for what only a bug can cause. Prints the condition, the place and a message, then
// aborts.
#pragma once

namespace quire {
[[noreturn]] void check_failed(const char* file,
                               int line,
                               const char* condition,
                               const char* message);
}

#define QUIRE_CHECK(cond) QUIRE_CHECK_MSG(cond, "")
#define QUIRE_CHECK_MSG(cond, message)                           \
  do {                                                           \
    if (!(cond)) [[unlikely]] {                                  \
      ::quire::check_failed(__FILE__, __LINE__, #cond, message); \
    }                                                            \
  } while (false)
