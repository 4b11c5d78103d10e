// A file that is read in pieces with pread (never mapped: a file truncated under a mapping is a
// SIGBUS), and that knows whether it changed since it was opened.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "base/status.h"

namespace quire {

class InputFile {
 public:
  static Result<InputFile> open(const std::filesystem::path& path);
  // A "file" whose bytes are `contents`, for tests and fuzzers.
  static InputFile from_memory(std::string name, std::string contents);

  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  const std::string& name() const { return name_; }
  int64_t size() const { return size_; }
  // Reads exactly [offset, offset + size); safe from any thread. A short read means that the file
  // was truncated after open().
  Status read(int64_t offset, int64_t size, void* destination) const;
  // kDataLoss when size or modification time differ from those at open().
  Status check_unchanged() const;

 private:
  InputFile() = default;
  std::string name_;
  int fd_ = -1;
  int64_t size_ = 0;
  int64_t mtime_ns_ = 0;
  std::string contents_;  // of from_memory()
};

// The whole of a small file; kResourceExhausted when it has more than max_bytes.
Result<std::string> read_text_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace quire
