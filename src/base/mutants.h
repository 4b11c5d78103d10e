// Deliberate bugs that prove the tests can fail. `if (mutant("name"))` is false at compile time
// unless the build has -DQUIRE_MUTANTS=1; there it is true for the one name in the environment
// variable QUIRE_MUTANT, read at first use. Never in a unit of an ISA level (kernels/cpu/).
#pragma once

namespace quire {

#if defined(QUIRE_MUTANTS) && QUIRE_MUTANTS
bool mutant(const char* name);
#else
constexpr bool mutant(const char*) { return false; }
#endif

}  // namespace quire
