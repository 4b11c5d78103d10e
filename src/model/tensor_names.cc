#include "model/tensor_names.h"

#include "base/check.h"

namespace quire {
namespace {

const char* pattern_of(const TensorName& name, CheckpointFormat format) {
  return format == CheckpointFormat::kGguf ? name.gguf : name.hugging_face;
}

// Whether `tensor` is `pattern` with a number for "{}", then ".weight" or ".bias".
bool matches(std::string_view pattern, std::string_view tensor) {
  const size_t hole = pattern.find("{}");
  if (hole != std::string_view::npos) {
    if (!tensor.starts_with(pattern.substr(0, hole))) return false;
    tensor.remove_prefix(hole);
    const size_t digits = tensor.find_first_not_of("0123456789");
    if (digits == 0 || digits == std::string_view::npos) return false;
    tensor.remove_prefix(digits);
    pattern.remove_prefix(hole + 2);
  }
  if (!tensor.starts_with(pattern)) return false;
  tensor.remove_prefix(pattern.size());
  return tensor == ".weight" || tensor == ".bias";
}

}  // namespace

std::string checkpoint_name(std::span<const TensorName> names,
                            CheckpointFormat format,
                            std::string_view name,
                            int layer,
                            const char* suffix) {
  for (const TensorName& entry : names) {
    if (name != entry.name) continue;
    const char* pattern = pattern_of(entry, format);
    QUIRE_CHECK_MSG(pattern != nullptr, "a tensor that this checkpoint format does not have");
    std::string text = pattern;
    if (const size_t hole = text.find("{}"); hole != std::string::npos) {
      text.replace(hole, 2, std::to_string(layer));
    }
    return text + suffix;
  }
  QUIRE_CHECK_MSG(false, "a weight name that the architecture's table does not list");
}

const char* tensor_group(std::span<const TensorName> names,
                         CheckpointFormat format,
                         std::string_view tensor) {
  for (const TensorName& entry : names) {
    const char* pattern = pattern_of(entry, format);
    if (pattern != nullptr && matches(pattern, tensor)) return entry.group;
  }
  return "other";
}

}  // namespace quire
