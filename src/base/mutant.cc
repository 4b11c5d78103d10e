#include "base/mutant.h"

#ifdef QUIRE_MUTANTS
#include <cstdlib>
#include <string>

namespace quire {

bool mutant_active(const char* name) {
  static const std::string active = [] {
    const char* value = std::getenv("QUIRE_MUTANT");
    return std::string(value != nullptr ? value : "");
  }();
  return active == name;
}

}  // namespace quire
#endif
