#include "base/mutants.h"

#if defined(QUIRE_MUTANTS) && QUIRE_MUTANTS

#include <cstdlib>
#include <cstring>

namespace quire {

bool mutant(const char* name) {
  static const char* const active = std::getenv("QUIRE_MUTANT");
  return active != nullptr && std::strcmp(name, active) == 0;
}

}  // namespace quire

#endif
