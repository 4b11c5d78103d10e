// GGUF v2 and v3, little endian, single and split files: header -> metadata and tensor list.
// Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// The header is untrusted: it is read front to back through a small buffer, every count is compared
// with the bytes that are left before anything is allocated for it, and the limits below hold.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"

namespace quire {

inline constexpr int64_t kGgufMaxTensors = 1 << 16;
inline constexpr int64_t kGgufMaxKeyValues = 1 << 16;
inline constexpr int64_t kGgufMaxNameBytes = 1 << 10;        // keys and tensor names
inline constexpr int64_t kGgufMaxStringBytes = 16 << 20;     // one string value
inline constexpr int64_t kGgufMaxArrayElements = 16 << 20;   // one array
inline constexpr int64_t kGgufMaxHeaderBytes = 512ll << 20;  // everything before the tensor data
inline constexpr int kGgufMaxDims = 4;
inline constexpr int kGgufMaxArrayDepth = 4;
inline constexpr int64_t kGgufMaxAlignment = 1 << 20;
inline constexpr int kGgufMaxSplits = 1024;

struct GgufValue {
  using Array = std::vector<GgufValue>;
  std::variant<int64_t,
               double,
               bool,
               std::string,
               std::vector<int64_t>,  // arrays of integers and of booleans
               std::vector<float>,    // of 32-bit reals
               std::vector<double>,   // of 64-bit reals
               std::vector<std::string>,
               Array>  // of arrays
      value;
};

class GgufMetadata {
 public:
  // Absent, or of another type: nullopt / null.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  const std::string* string(std::string_view key) const;
  template <class T>
  const std::vector<T>* array(std::string_view key) const {
    const GgufValue* found = find(key);
    return found == nullptr ? nullptr : std::get_if<std::vector<T>>(&found->value);
  }
  const GgufValue* find(std::string_view key) const;

  std::map<std::string, GgufValue, std::less<>> values;
};

struct GgufFile {
  GgufMetadata metadata;  // of the first file of a split model
  Checkpoint checkpoint;
};

// `path` may be any file of a split model; the others are found by name.
Result<GgufFile> open_gguf(const std::filesystem::path& path);
// One unsplit file, already open (tests, fuzzers).
Result<GgufFile> read_gguf(InputFile file);

}  // namespace quire
