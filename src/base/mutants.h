// Deliberate bugs that exist in test builds only: `if (mutant("name")) break_something();`. One is
// switched on by the environment variable QUIRE_MUTANT, read once, so that a script can show that
// the tests catch it. In a build without -DQUIRE_MUTANTS=1 every mutant is the constant false.
#pragma once

#include <cstdlib>
#include <string_view>

namespace quire {

#if defined(QUIRE_MUTANTS) && QUIRE_MUTANTS
inline bool mutant(std::string_view name) {
  static const char* const active = std::getenv("QUIRE_MUTANT");
  return active != nullptr && name == active;
}
#else
constexpr bool mutant(std::string_view) { return false; }
#endif

}  // namespace quire
