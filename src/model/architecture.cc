#include "model/architecture.h"

namespace quire {
namespace {

constexpr const Architecture* kArchitectures[] = {&kLlama, &kMistral, &kQwen2, &kQwen3, &kOpt};

}  // namespace

std::span<const Architecture* const> architectures() { return kArchitectures; }

Result<const Architecture*> find_architecture(std::string_view name) {
  std::string list;
  for (const Architecture* architecture : kArchitectures) {
    if (name == architecture->name) return architecture;
    list += std::string(list.empty() ? "" : ", ") + architecture->name;
  }
  return unsupported("architecture \"" + std::string(name) + "\"; supported: " + list);
}

Result<const Architecture*> find_gguf_architecture(std::string_view gguf_name) {
  std::string list;
  for (const Architecture* architecture : kArchitectures) {
    if (architecture->gguf_name == nullptr) continue;
    if (gguf_name == architecture->gguf_name) return architecture;
    if (list.find(architecture->gguf_name) == std::string::npos) {
      list += std::string(list.empty() ? "" : ", ") + architecture->gguf_name;
    }
  }
  return unsupported("GGUF architecture \"" + std::string(gguf_name) + "\"; supported: " + list);
}

}  // namespace quire
