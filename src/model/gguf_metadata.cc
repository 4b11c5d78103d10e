#include "model/gguf.h"

namespace quire {

const GgufValue* GgufMetadata::find(std::string_view key) const {
  auto it = values.find(key);
  return it == values.end() ? nullptr : &it->second;
}

std::optional<int64_t> GgufMetadata::integer(std::string_view key) const {
  const GgufValue* found = find(key);
  const int64_t* value = found == nullptr ? nullptr : std::get_if<int64_t>(&found->value);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* found = find(key);
  if (found == nullptr) return std::nullopt;
  if (const double* value = std::get_if<double>(&found->value)) return *value;
  if (const int64_t* value = std::get_if<int64_t>(&found->value)) {
    return static_cast<double>(*value);
  }
  return std::nullopt;
}

std::optional<bool> GgufMetadata::boolean(std::string_view key) const {
  const GgufValue* found = find(key);
  const bool* value = found == nullptr ? nullptr : std::get_if<bool>(&found->value);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

const std::string* GgufMetadata::string(std::string_view key) const {
  const GgufValue* found = find(key);
  return found == nullptr ? nullptr : std::get_if<std::string>(&found->value);
}

}  // namespace quire
