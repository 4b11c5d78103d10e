// safetensors: one file, or shards listed by model.safetensors.index.json.
// Layout: 8-byte little-endian header length, JSON header, data; https://github.com/huggingface/
// safetensors, "Format".
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/status.h"
#include "model/checkpoint.h"

namespace quire {

inline constexpr int64_t kSafetensorsMaxHeaderBytes = 100'000'000;
inline constexpr int64_t kSafetensorsMaxIndexBytes = 100'000'000;
inline constexpr int kSafetensorsMaxDims = 8;
inline constexpr int kSafetensorsMaxShards = 4096;

// The checkpoint of a Hugging Face folder: model.safetensors, or the shards of its index.
Result<Checkpoint> open_safetensors_folder(const std::filesystem::path& folder);
// Adds one file's tensors to `checkpoint`.
Status read_safetensors(InputFile file, Checkpoint* checkpoint);

}  // namespace quire
