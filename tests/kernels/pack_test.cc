#include "kernels/pack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/matrix_fixture.h"

namespace quire {
namespace {

using test::TestMatrix;

std::vector<int64_t> depths(DType type) {
  const int32_t elems = dtype_info(type).elems;
  if (elems == 1) return {1, 7, 33, 64};
  if (elems == 32) return {32, 64, 576};
  return {256, 1536};
}

TEST(Pack, RowsComeBackBitEqualToTheCheckpoint) {
  for (const DType type : test::kWeightTypes) {
    for (const int64_t n : {1, 31, 32, 33, 96}) {
      for (const int64_t k : depths(type)) {
        SCOPED_TRACE(dtype_info(type).name + (" n=" + std::to_string(n)) +
                     " k=" + std::to_string(k));
        TestMatrix w(type, n, k, 7);
        EXPECT_TRUE(w.memory.intact());
        std::vector<float> row(k);
        for (int64_t r = 0; r < n; ++r) {
          dequantize_row(w.packed, r, row.data());
          ASSERT_EQ(0, std::memcmp(row.data(), w.values.data() + r * k, k * sizeof(float)))
              << "row " << r;
        }
      }
    }
  }
}

TEST(Pack, RowsBeyondTheMatrixAreZeroWeights) {
  for (const DType type : test::kWeightTypes) {
    const int64_t k = 256;
    TestMatrix w(type, 3, k, 7);
    PackedMatrix padded = w.packed;
    padded.n = 32;
    std::vector<float> row(k);
    for (int64_t r = 3; r < 32; ++r) {
      dequantize_row(padded, r, row.data());
      for (const float v : row) ASSERT_EQ(0.0f, v) << dtype_info(type).name << " row " << r;
    }
  }
}

TEST(Pack, TakesNoMoreThanTheCheckpointSaveForWiderSubScales) {
  for (const DType type : test::kWeightTypes) {
    const int64_t n = 64, k = 512;
    const DTypeInfo& info = dtype_info(type);
    const int64_t checkpoint = n * k / info.elems * info.bytes;
    const bool widened = type == DType::kQ4_K || type == DType::kQ5_K;
    const int64_t extra = widened ? n * k / 256 * 4 : 0;  // 16 bytes of scales instead of 12
    EXPECT_EQ(checkpoint + extra, packed_bytes(type, n, k)) << info.name;
  }
}

}  // namespace
}  // namespace quire
