// Shared-memory descriptors, swizzle and fragment layout of wgmma, one tile at a time against the
// host.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/layout_kernels.h"
#include "kernels/cuda/fragment.cuh"

namespace {

struct Case {
  int n, d;
  bool grouped;
};

// Small integers: exact in bf16, and so are their dot products in f32.
std::vector<uint16_t> random_bf16(int count, unsigned seed, std::vector<float>* values) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int> integer(-8, 8);
  std::vector<uint16_t> bits(count);
  values->resize(count);
  for (int i = 0; i < count; ++i) {
    const float x = static_cast<float>(integer(generator));
    uint32_t word;
    std::memcpy(&word, &x, 4);
    bits[i] = static_cast<uint16_t>(word >> 16);
    (*values)[i] = x;
  }
  return bits;
}

class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t bytes) { cudaMalloc(&pointer_, bytes); }
  ~DeviceBuffer() { cudaFree(pointer_); }
  void* get() const { return pointer_; }

 private:
  void* pointer_ = nullptr;
};

class WgmmaLayoutTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess || properties.major != 9) {
      GTEST_SKIP() << "needs a GPU of compute capability 9.0";
    }
  }
  using Run = int (*)(int, int, bool, const void*, const void*, float*);
  static std::vector<float> run(Run function,
                                const std::vector<uint16_t>& a,
                                const std::vector<uint16_t>& b,
                                int out_count) {
    const DeviceBuffer da(a.size() * 2), db(b.size() * 2), out(out_count * 4);
    cudaMemcpy(da.get(), a.data(), a.size() * 2, cudaMemcpyHostToDevice);
    cudaMemcpy(db.get(), b.data(), b.size() * 2, cudaMemcpyHostToDevice);
    const auto [n, d, grouped] = GetParam();
    EXPECT_EQ(function(n, d, grouped, da.get(), db.get(), static_cast<float*>(out.get())), 0);
    std::vector<float> host(out_count);
    cudaMemcpy(host.data(), out.get(), out_count * 4, cudaMemcpyDeviceToHost);
    return host;
  }
};

TEST_P(WgmmaLayoutTest, ScoresAreExact) {
  const auto [n, d, grouped] = GetParam();
  std::vector<float> q, k;
  const auto q_bits = random_bf16(64 * d, 1, &q), k_bits = random_bf16(n * d, 2, &k);
  const std::vector<float> s = run(quire::cuda::run_qk, q_bits, k_bits, 64 * n);
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < n; ++j) {
      float expected = 0;
      for (int c = 0; c < d; ++c) expected += q[i * d + c] * k[j * d + c];
      ASSERT_EQ(s[i * n + j], expected) << "row " << i << " column " << j;
    }
  }
}

TEST_P(WgmmaLayoutTest, WeightedSumsAreExact) {
  const auto [n, d, grouped] = GetParam();
  if (n == 176) GTEST_SKIP() << "scores only";
  std::vector<float> p, v;
  const auto p_bits = random_bf16(64 * n, 3, &p), v_bits = random_bf16(n * d, 4, &v);
  const std::vector<float> o = run(quire::cuda::run_pv, p_bits, v_bits, 64 * d);
  for (int i = 0; i < 64; ++i) {
    for (int c = 0; c < d; ++c) {
      float expected = 0;
      for (int j = 0; j < n; ++j) expected += p[i * n + j] * v[j * d + c];
      ASSERT_EQ(o[i * d + c], expected) << "row " << i << " column " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiles,
                         WgmmaLayoutTest,
                         ::testing::Values(Case{64, 64, false},
                                           Case{128, 128, false},
                                           Case{80, 256, false},
                                           Case{176, 128, false},
                                           Case{64, 64, true},
                                           Case{128, 128, true},
                                           Case{80, 256, true},
                                           Case{176, 128, true}));

TEST(SwizzleTest, IsAPermutationOfEachGroupOfEightRows) {
  std::vector<bool> seen(64);
  for (int row = 0; row < 8; ++row) {
    for (int chunk = 0; chunk < 8; ++chunk) {
      const uint32_t at = quire::cuda::swizzle128(row, chunk);
      ASSERT_EQ(at % 16, 0u);
      ASSERT_LT(at, 1024u);
      ASSERT_FALSE(seen[at / 16]);
      seen[at / 16] = true;
    }
  }
}

TEST(SwizzleTest, ColumnOfChunksTouchesAllBanksOnce) {
  for (int chunk = 0; chunk < 8; ++chunk) {
    unsigned banks = 0;
    for (int row = 0; row < 8; ++row) {
      banks |= 1u << (quire::cuda::swizzle128(row, chunk) % 128 / 16);
    }
    EXPECT_EQ(banks, 0xffu);
  }
}

}  // namespace
