// Random weights in checkpoint order and fenced buffers, for the tests of packing and of `linear`.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/pack.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace quire::test {

inline constexpr DType kWeightTypes[] = {DType::kF32,
                                         DType::kF16,
                                         DType::kBF16,
                                         DType::kQ4_0,
                                         DType::kQ4_1,
                                         DType::kQ5_0,
                                         DType::kQ5_1,
                                         DType::kQ8_0,
                                         DType::kQ4_K,
                                         DType::kQ5_K,
                                         DType::kQ6_K};

// Bytes between two fences; check() tells whether anything wrote outside.
class Fenced {
 public:
  explicit Fenced(int64_t bytes, unsigned char fill = 0xff) : bytes_(bytes) {
    memory_.assign(bytes + 2 * kFence + 64, kPattern);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data()) + kFence;
    data_ = memory_.data() + kFence + (64 - address % 64) % 64;
    std::memset(data_, fill, bytes);
  }
  unsigned char* data() { return data_; }
  float* floats() { return reinterpret_cast<float*>(data_); }
  bool intact() const {
    for (const unsigned char* p = memory_.data(); p < memory_.data() + memory_.size(); ++p) {
      if ((p < data_ || p >= data_ + bytes_) && *p != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr int kFence = 256;
  static constexpr unsigned char kPattern = 0xc5;
  std::vector<unsigned char> memory_;
  unsigned char* data_;
  int64_t bytes_;
};

inline void put_half(unsigned char* p, float value) {
  const uint16_t h = f32_to_f16(value);
  std::memcpy(p, &h, 2);
}

// n x k weights as they stand in a checkpoint: random codes, scales that make |w| about 0.1.
inline std::vector<unsigned char> random_weights(DType type, int64_t n, int64_t k, uint32_t seed) {
  const DTypeInfo& info = dtype_info(type);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> unit(-1, 1);
  std::vector<unsigned char> data(n * k / info.elems * info.bytes);
  for (unsigned char& byte : data) byte = static_cast<unsigned char>(rng());
  for (int64_t b = 0; b < n * k / info.elems; ++b) {
    unsigned char* block = data.data() + b * info.bytes;
    const float value = unit(rng), other = unit(rng);
    switch (type) {
      case DType::kF32:
        std::memcpy(block, &value, 4);
        break;
      case DType::kF16:
        put_half(block, value);
        break;
      case DType::kBF16: {
        const uint16_t h = f32_to_bf16(value);
        std::memcpy(block, &h, 2);
        break;
      }
      case DType::kQ4_1:
      case DType::kQ5_1:
        put_half(block, value * 0.02f);
        put_half(block + 2, other * 0.2f);
        break;
      case DType::kQ4_K:
      case DType::kQ5_K:
        put_half(block, value * 0.001f);
        put_half(block + 2, other * 0.01f);
        break;
      case DType::kQ6_K:
        put_half(block + 208, value * 1e-4f);
        break;
      case DType::kQ8_0:
        put_half(block, value * 0.002f);
        break;
      default:
        put_half(block, value * 0.02f);
        break;
    }
  }
  return data;
}

// A packed matrix that owns its bytes, and the weights as f32 from the checkpoint bytes.
struct TestMatrix {
  TestMatrix(DType type, int64_t n, int64_t k, uint32_t seed)
      : checkpoint(random_weights(type, n, k, seed)),
        values(n * k),
        memory(packed_bytes(type, n, k)),
        packed{type, n, k, memory.data()} {
    dequantize(type, checkpoint.data(), n * k, values.data());
    const int64_t row_bytes = k / dtype_info(type).elems * dtype_info(type).bytes;
    for (int64_t p = (n + 31) / 32 - 1; p >= 0; --p) {
      const int64_t rows = std::min<int64_t>(32, n - p * 32);
      const unsigned char* from = checkpoint.data() + p * 32 * row_bytes;
      pack_panel(type, k, from, row_bytes, rows, p, memory.data());
    }
  }
  std::vector<unsigned char> checkpoint;
  std::vector<float> values;
  Fenced memory;
  PackedMatrix packed;
};

// Random rows with a stride, NaN wherever an op must not look: between and after the rows.
struct TestRows {
  TestRows(int64_t rows, int64_t cols, uint32_t seed)
      : memory((rows + 2) * (cols + 5) * 4), view{memory.floats(), rows, cols, cols + 5} {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) memory.floats()[r * view.stride + c] = normal(rng);
    }
  }
  const float* row(int64_t r) const { return view.data + r * view.stride; }
  Fenced memory;  // 0xff bytes are NaNs
  ConstMatF view;
};

}  // namespace quire::test
