// Reads golden.safetensors: prompts, and the logits that the reference implementation gives them.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "model/safetensors.h"

namespace quire::testing {

struct GoldenPrompt {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;  // whose logits are stored
  std::vector<float> logits;       // [positions.size(), V]
};

template <class T>
std::vector<T> read_values(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* tensor = checkpoint.find(name);
  QUIRE_CHECK_MSG(tensor != nullptr, name.c_str());
  std::vector<T> values(static_cast<size_t>(tensor->bytes) / sizeof(T));
  Status status = checkpoint.read(*tensor, 0, tensor->bytes, values.data());
  QUIRE_CHECK_MSG(status.ok(), status.message().c_str());
  return values;
}

inline std::vector<GoldenPrompt> read_golden(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  Status status = read_safetensors(InputFile::open(path).value(), &checkpoint);
  QUIRE_CHECK_MSG(status.ok(), status.message().c_str());
  std::vector<GoldenPrompt> prompts;
  for (int i = 0; checkpoint.find("tokens_" + std::to_string(i)) != nullptr; ++i) {
    const std::string suffix = std::string("_").append(std::to_string(i));
    prompts.push_back({read_values<int32_t>(checkpoint, "tokens" + suffix),
                       read_values<int32_t>(checkpoint, "positions" + suffix),
                       read_values<float>(checkpoint, "logits" + suffix)});
  }
  return prompts;
}

}  // namespace quire::testing
