// Writes GGUF bytes, well-formed unless told otherwise, so that tests can damage exactly one thing.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace quire::testing {

class GgufBuilder {
 public:
  static constexpr uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2;

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // innermost first
    uint32_t type;
    std::string data;
    uint64_t offset;  // in the data section
  };

  uint32_t version = 3;
  uint32_t alignment = 32;
  uint64_t num_tensors_delta = 0, num_values_delta = 0;  // lies about the counts
  int num_values = 0;
  std::string values;  // encoded metadata
  std::vector<Tensor> tensors;

  template <class T>
  static std::string encode(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string encode_string(std::string_view text) {
    return encode<uint64_t>(text.size()) + std::string(text);
  }

  GgufBuilder& raw(std::string_view key, uint32_t type, const std::string& value) {
    values += encode_string(key) + encode(type) + value;
    ++num_values;
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return raw(key, 4, encode(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return raw(key, 6, encode(value)); }
  GgufBuilder& string(std::string_view key, std::string_view value) {
    return raw(key, 8, encode_string(value));
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& items) {
    std::string bytes = encode<uint32_t>(8) + encode<uint64_t>(items.size());
    for (const std::string& item : items) bytes += encode_string(item);
    return raw(key, 9, bytes);
  }

  GgufBuilder& tensor(std::string name,
                      std::vector<uint64_t> dims,
                      uint32_t type,
                      std::string data) {
    uint64_t offset = 0;
    if (!tensors.empty()) offset = tensors.back().offset + padded(tensors.back().data.size());
    tensors.push_back({std::move(name), std::move(dims), type, std::move(data), offset});
    return *this;
  }
  GgufBuilder& f32_tensor(std::string name, std::vector<uint64_t> dims, std::vector<float> values) {
    std::string data(values.size() * 4, '\0');
    std::memcpy(data.data(), values.data(), data.size());
    return tensor(std::move(name), std::move(dims), kF32, std::move(data));
  }

  std::string header() const {
    std::string out = "GGUF" + encode(version);
    out += encode<uint64_t>(tensors.size() + num_tensors_delta);
    out += encode<uint64_t>(static_cast<uint64_t>(num_values) + num_values_delta);
    out += values;
    for (const Tensor& t : tensors) {
      out += encode_string(t.name) + encode<uint32_t>(static_cast<uint32_t>(t.dims.size()));
      for (uint64_t dim : t.dims) out += encode(dim);
      out += encode(t.type) + encode(t.offset);
    }
    return out;
  }
  std::string build() const {
    std::string out = header();
    if (tensors.empty()) return out;
    out.resize(padded(out.size()));
    const size_t start = out.size();
    for (const Tensor& t : tensors) {
      if (t.offset > (1 << 20)) continue;  // a lie of the test
      if (out.size() < start + t.offset + t.data.size()) {
        out.resize(start + t.offset + t.data.size());
      }
      std::memcpy(out.data() + start + t.offset, t.data.data(), t.data.size());
    }
    return out;
  }

 private:
  uint64_t padded(uint64_t size) const { return (size + alignment - 1) / alignment * alignment; }
};

}  // namespace quire::testing
