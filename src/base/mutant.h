// Deliberate bugs, with which scripts/mutants shows that the tests notice. A mutant has one call of
// mutant_active in the code and one line in tests/mutants/mutants.txt:
//
//   if (mutant_active("kv_leaks_last_block")) return;
//
// Only the preset `mutants` compiles the switch; elsewhere it is the constant false. Kernel units
// of one ISA level cannot include this header; their mutants sit in the units that call them.
#pragma once

namespace quire {

#ifdef QUIRE_MUTANTS
// True when the environment variable QUIRE_MUTANT is `name`.
bool mutant_active(const char* name);
#else
constexpr bool mutant_active(const char*) { return false; }
#endif

}  // namespace quire
