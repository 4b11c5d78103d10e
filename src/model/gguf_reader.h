// Sequential little-endian reads of an untrusted file through a small buffer.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "model/input_file.h"

namespace quire {

class GgufReader {
 public:
  // Reads beyond `limit` bytes fail: a header has no business being larger.
  GgufReader(const InputFile& file, int64_t limit) : file_(file), limit_(limit) {}

  int64_t position() const { return position_; }
  int64_t remaining() const { return file_.size() - position_; }

  // `what` names the field in the error.
  template <class T>
  Status number(const char* what, T* out) {
    static_assert(std::is_arithmetic_v<T>);
    return bytes(what, sizeof(T), out);
  }
  Status bytes(const char* what, int64_t size, void* out);
  // A 64-bit length, then that many bytes.
  Status string(const char* what, int64_t max_bytes, std::string* out);
  // A 64-bit count of things that take at least `min_bytes` each.
  Status count(const char* what, int64_t max_count, int64_t min_bytes, int64_t* out);

 private:
  static constexpr int64_t kBufferBytes = 64 << 10;

  const InputFile& file_;
  int64_t limit_;
  int64_t position_ = 0;
  std::vector<char> buffer_;
  int64_t buffer_start_ = 0;
};

}  // namespace quire
