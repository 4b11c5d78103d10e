#include "base/mutants.h"

#if defined(QUIRE_MUTANTS) && QUIRE_MUTANTS
#include <cstdlib>
#include <cstring>

namespace quire {

bool mutant(const char* name) {
  static const char* const chosen = std::getenv("QUIRE_MUTANT");
  return chosen != nullptr && std::strcmp(chosen, name) == 0;
}

}  // namespace quire
#endif
