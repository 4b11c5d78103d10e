// Owners for what the C ABI hands out, and its status codes as Status.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/ffi/quire_text.h"

namespace quire::text_ffi {

inline quire_text_view view(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() { quire_text_bytes_free(bytes_); }

  quire_text_bytes* out() { return &bytes_; }
  std::string str() const {
    return bytes_.size == 0 ? std::string()
                            : std::string(reinterpret_cast<const char*>(bytes_.data), bytes_.size);
  }

 private:
  quire_text_bytes bytes_ = {};
};

class Ids {
 public:
  Ids() = default;
  Ids(const Ids&) = delete;
  Ids& operator=(const Ids&) = delete;
  ~Ids() { quire_text_ids_free(ids_); }

  quire_text_ids* out() { return &ids_; }
  std::vector<int32_t> vec() const { return {ids_.data, ids_.data + ids_.size}; }

 private:
  quire_text_ids ids_ = {};
};

inline Status status(int32_t code, const Bytes& error) {
  return code == 0 ? Status() : Status(static_cast<StatusCode>(code), error.str());
}

}  // namespace quire::text_ffi
