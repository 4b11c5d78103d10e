// The scalar definitions: 16-bit floats exhaustively, each format against values worked out by hand
// and against what the gguf package makes of the same bytes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "base/json.h"
#include "kernels/pack.h"
#include "matrix_fixture.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace quire {
namespace {

// ---- 16-bit floats

TEST(Half, EveryValueIsSignTimesMantissaTimesPowerOfTwo) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const double sign = h & 0x8000 ? -1 : 1;
    const float got = f16_to_f32(static_cast<uint16_t>(h));
    if (exponent == 31 && mantissa != 0) {
      ASSERT_TRUE(std::isnan(got)) << h;
      continue;
    }
    double want = sign * std::ldexp(mantissa, -24);
    if (exponent != 0) want = sign * std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) want = sign * std::numeric_limits<double>::infinity();
    ASSERT_EQ(want, got) << h;
    ASSERT_EQ(std::signbit(want), std::signbit(got)) << h;
  }
}

TEST(Half, EveryValueComesBackFromF32) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float value = f16_to_f32(static_cast<uint16_t>(h));
    const uint16_t back = f32_to_f16(value);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(f16_to_f32(back))) << h;
    } else {
      ASSERT_EQ(h, back);
    }
  }
}

TEST(Half, ValuesBetweenTwoHalvesRoundToTheNearestAndTiesToEven) {
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const double low = f16_to_f32(static_cast<uint16_t>(h));
    const double high = h == 0x7bff ? 65536.0 : f16_to_f32(static_cast<uint16_t>(h + 1));
    const auto middle = static_cast<float>((low + high) / 2);  // exact
    const float below = std::nextafter(middle, 0.0f), above = std::nextafter(middle, 1e9f);
    ASSERT_EQ(h, f32_to_f16(below)) << below;
    ASSERT_EQ(h + (h & 1), f32_to_f16(middle)) << middle;
    ASSERT_EQ(h + 1, f32_to_f16(above)) << above;
    ASSERT_EQ((h + 1) | 0x8000, f32_to_f16(-above)) << above;
  }
}

TEST(Half, Bf16RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(0x3f80, f32_to_bf16(1.0f));
  EXPECT_EQ(0x3f80, f32_to_bf16(f32_from_bits(0x3f808000)));  // a tie, to even
  EXPECT_EQ(0x3f82, f32_to_bf16(f32_from_bits(0x3f818000)));
  EXPECT_EQ(0x3f81, f32_to_bf16(f32_from_bits(0x3f808001)));
  EXPECT_EQ(0x7f80, f32_to_bf16(std::numeric_limits<float>::max()));
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001)))));
}

// ---- Formats by hand: one block with codes that are easy to follow

using Block = std::vector<unsigned char>;

std::vector<float> values_of(DType type, const Block& block) {
  EXPECT_EQ(dtype_info(type).bytes, static_cast<int32_t>(block.size()));
  std::vector<float> out(dtype_info(type).elems);
  dequantize(type, block.data(), static_cast<int64_t>(out.size()), out.data());
  return out;
}

TEST(Formats, Q4LowNibblesComeFirst) {
  Block block(18);
  test::put_half(block.data(), 0.5f);
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<unsigned char>(i | ((15 - i) << 4));
  const std::vector<float> w = values_of(DType::kQ4_0, block);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(0.5f * (i - 8), w[i]);
    EXPECT_EQ(0.5f * (7 - i), w[i + 16]);
  }
  Block with_min(20);
  test::put_half(with_min.data(), 0.5f);
  test::put_half(with_min.data() + 2, -3.0f);
  std::copy_n(block.begin() + 2, 16, with_min.begin() + 4);
  const std::vector<float> v = values_of(DType::kQ4_1, with_min);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(0.5f * i - 3.0f, v[i]);
}

TEST(Formats, Q5HighBitsAreNumberedByElement) {
  Block block(22), with_min(24);
  test::put_half(block.data(), 2.0f);
  test::put_half(with_min.data(), 2.0f);
  test::put_half(with_min.data() + 2, 1.0f);
  block[2] = with_min[4] = 0x01;  // element 0
  block[5] = with_min[7] = 0x80;  // element 31
  const std::vector<float> w = values_of(DType::kQ5_0, block);
  const std::vector<float> v = values_of(DType::kQ5_1, with_min);
  for (int i = 0; i < 32; ++i) {
    const bool high = i == 0 || i == 31;
    EXPECT_EQ(2.0f * ((high ? 16 : 0) - 16), w[i]) << i;
    EXPECT_EQ(2.0f * (high ? 16 : 0) + 1.0f, v[i]) << i;
  }
}

TEST(Formats, Q8CodesAreSigned) {
  Block block(34);
  test::put_half(block.data(), 0.25f);
  for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<unsigned char>(i * 8 - 128);
  const std::vector<float> w = values_of(DType::kQ8_0, block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(0.25f * (i * 8 - 128), w[i]);
}

// Sub-block j gets scale 5 + 7 j (up to 54) and min 63 - 8 j: more than four bits, so that the
// split fields are used.
void put_k_scales(unsigned char* packed) {
  for (int j = 0; j < 8; ++j) {
    const int scale = 5 + 7 * j, min = 63 - 8 * j;
    if (j < 4) {
      packed[j] |= scale;
      packed[j + 4] |= min;
    } else {
      packed[j + 4] |= (scale & 15) | ((min & 15) << 4);
      packed[j - 4] |= (scale >> 4) << 6;
      packed[j] |= (min >> 4) << 6;
    }
  }
}

TEST(Formats, Q4KAndQ5KSubBlocksHaveSixBitScalesAndMins) {
  Block four(144), five(176);
  for (Block* block : {&four, &five}) {
    test::put_half(block->data(), 0.5f);
    test::put_half(block->data() + 2, 0.125f);
    put_k_scales(block->data() + 4);
  }
  for (int i = 0; i < 128; ++i) {
    four[16 + i] = five[48 + i] = static_cast<unsigned char>((i % 16) | ((i / 16) << 4));
  }
  for (int i = 0; i < 32; ++i) five[16 + i] = 0xa5;  // sub-blocks 0, 2, 5, 7
  const std::vector<float> w4 = values_of(DType::kQ4_K, four);
  const std::vector<float> w5 = values_of(DType::kQ5_K, five);
  for (int e = 0; e < 256; ++e) {
    const int j = e / 32, byte = j / 2 * 32 + e % 32;
    const int q = j % 2 == 0 ? byte % 16 : byte / 16;
    const float scale = 0.5f * static_cast<float>(5 + 7 * j);
    const float min = 0.125f * static_cast<float>(63 - 8 * j);
    EXPECT_EQ(scale * static_cast<float>(q) - min, w4[e]) << e;
    EXPECT_EQ(scale * static_cast<float>(q + ((0xa5 >> j) & 1) * 16) - min, w5[e]) << e;
  }
}

TEST(Formats, Q6KHasAScalePerSixteen) {
  Block block(210);
  test::put_half(block.data() + 208, 0.5f);
  for (int i = 0; i < 128; ++i) block[i] = static_cast<unsigned char>((i % 16) | 0x30);
  for (int i = 0; i < 64; ++i) block[128 + i] = 0xe4;  // quarters 0, 1, 2, 3 get 0, 1, 2, 3
  for (int i = 0; i < 16; ++i) block[192 + i] = static_cast<unsigned char>(i * 16 - 128);
  const std::vector<float> w = values_of(DType::kQ6_K, block);
  for (int e = 0; e < 256; ++e) {
    const int quarter = e / 32 % 4;
    const int q = (quarter < 2 ? e % 16 : 3) + 16 * quarter - 32;
    EXPECT_EQ(0.5f * static_cast<float>(e / 16 * 16 - 128) * static_cast<float>(q), w[e]) << e;
  }
}

// ---- Golden: bytes and values from the gguf package

struct Golden {
  std::vector<unsigned char> blocks;
  std::vector<float> values;
};

// A safetensors file: u64 length of the JSON header, header, data.
Golden read_golden(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  Golden out;
  uint64_t length = 0;
  if (bytes.size() >= 8) std::memcpy(&length, bytes.data(), 8);
  if (length == 0 || length + 8 > bytes.size()) return out;
  const Result<JsonValue> header = parse_json(std::string_view(bytes).substr(8, length));
  if (!header.ok()) return out;
  const auto offset = [&](const char* tensor, int i) {
    return 8 + length + *(*header.value().get(tensor)->get("data_offsets")->array())[i].integer();
  };
  out.blocks.assign(bytes.begin() + offset("blocks", 0), bytes.begin() + offset("blocks", 1));
  out.values.resize((offset("values", 1) - offset("values", 0)) / 4);
  std::memcpy(out.values.data(), bytes.data() + offset("values", 0), out.values.size() * 4);
  return out;
}

TEST(Formats, DequantIsBitEqualToTheGgufPackage) {
  for (const DType type : test::kWeightTypes) {
    if (type == DType::kF32) continue;  // nothing to convert
    const std::string name = dtype_info(type).name;
    const Golden golden = read_golden(QUIRE_TESTDATA "/golden/dequant/" + name + ".safetensors");
    const DTypeInfo& info = dtype_info(type);
    ASSERT_GT(golden.values.size(), 300u) << name;
    ASSERT_EQ(golden.values.size() / info.elems * info.bytes, golden.blocks.size()) << name;
    std::vector<float> got(golden.values.size());
    dequantize(type, golden.blocks.data(), static_cast<int64_t>(got.size()), got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(bits_of_f32(golden.values[i]), bits_of_f32(got[i]))
          << name << " element " << i << ": " << got[i] << " instead of " << golden.values[i];
    }
  }
}

}  // namespace
}  // namespace quire
