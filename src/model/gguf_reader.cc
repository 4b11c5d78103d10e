#include "model/gguf_reader.h"

#include <algorithm>

namespace quire {

Status GgufReader::bytes(const char* what, int64_t size, void* out) {
  if (size > remaining()) {
    return data_loss("the header ends inside " + std::string(what) + " (byte " +
                     std::to_string(file_.size()) +
                     "); the file is truncated or damaged, fetch it again");
  }
  if (size > limit_ - position_) {
    return data_loss("the header is larger than " + std::to_string(limit_) +
                     " bytes; the file is damaged, fetch it again");
  }
  auto* to = static_cast<char*>(out);
  while (size > 0) {
    int64_t buffered = buffer_start_ + static_cast<int64_t>(buffer_.size()) - position_;
    if (position_ < buffer_start_ || buffered <= 0) {
      buffer_.resize(static_cast<size_t>(std::min(kBufferBytes, remaining())));
      buffer_start_ = position_;
      QUIRE_RETURN_IF_ERROR(
          file_.read(position_, static_cast<int64_t>(buffer_.size()), buffer_.data()));
      continue;
    }
    int64_t n = std::min(size, buffered);
    std::memcpy(to, buffer_.data() + (position_ - buffer_start_), static_cast<size_t>(n));
    position_ += n;
    to += n;
    size -= n;
  }
  return Status();
}

Status GgufReader::count(const char* what, int64_t max_count, int64_t min_bytes, int64_t* out) {
  uint64_t value = 0;
  QUIRE_RETURN_IF_ERROR(number(what, &value));
  if (value > static_cast<uint64_t>(max_count)) {
    return data_loss(std::string(what) + " is " + std::to_string(value) + ", the limit is " +
                     std::to_string(max_count) + "; the file is damaged, fetch it again");
  }
  if (static_cast<int64_t>(value) > remaining() / min_bytes) {
    return data_loss(std::string(what) + " is " + std::to_string(value) + ", but only " +
                     std::to_string(remaining()) +
                     " bytes follow; the file is truncated or damaged, fetch it again");
  }
  *out = static_cast<int64_t>(value);
  return Status();
}

Status GgufReader::string(const char* what, int64_t max_bytes, std::string* out) {
  int64_t length = 0;
  QUIRE_RETURN_IF_ERROR(count(what, max_bytes, 1, &length));
  out->resize(static_cast<size_t>(length));
  return bytes(what, length, out->data());
}

}  // namespace quire
