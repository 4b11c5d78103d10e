// Deliberate bugs that exist in test builds only: `if (mutant("name")) break_something();`. One is
// switched on by the environment variable QUIRE_MUTANT, read once, so that a script can show that
// the tests catch it (scripts/mutants). In a build without -DQUIRE_MUTANTS=1 every mutant is the
// constant false. Names begin with the test family that should catch them: "kv_...",
// "kernels_...", "model_...", "golden_...", "exactness_..." and so on.
//
// Units of an ISA level include this header: no standard library, nothing with external linkage
// that is defined here (kernels/ops.h).
#pragma once

namespace quire {

#if defined(QUIRE_MUTANTS) && QUIRE_MUTANTS
bool mutant(const char* name);
#else
static inline constexpr bool mutant(const char*) { return false; }
#endif

}  // namespace quire
