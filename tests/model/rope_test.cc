#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quire {
namespace {

RopeConfig plain(int dim, double theta) {
  RopeConfig rope;
  rope.rotary_dim = dim;
  rope.theta = theta;
  return rope;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6 * want[i]) << i;
}

// The wanted values were computed by the rope functions of Hugging Face transformers 5.23.0 (f32)
// for a head dimension of 8.
TEST(RopeTest, FrequenciesEqualTransformers) {
  expect_near(rope_inverse_frequencies(plain(8, 10000.0)), {1.0, 0.1, 0.01, 0.001});
  RopeConfig linear = plain(8, 10000.0);
  linear.scaling = RopeScaling::kLinear;
  linear.factor = 4.0;
  expect_near(rope_inverse_frequencies(linear), {0.25, 0.025, 0.0025, 0.00025});
  RopeConfig yarn = plain(8, 10000.0);
  yarn.scaling = RopeScaling::kYarn;
  yarn.factor = 4.0;
  yarn.original_max_position = 64;
  expect_near(rope_inverse_frequencies(yarn), {1.0, 0.0625, 0.0025, 0.00025});
  yarn.truncate = false;
  yarn.beta_fast = 8.0;
  yarn.beta_slow = 2.0;
  expect_near(rope_inverse_frequencies(yarn), {1.0, 0.025, 0.0025, 0.00025});
  RopeConfig llama3 = plain(8, 10000.0);
  llama3.scaling = RopeScaling::kLlama3;
  llama3.factor = 8.0;
  llama3.original_max_position = 1024;
  expect_near(rope_inverse_frequencies(llama3), {1.0, 0.1, 0.0030867606, 0.000125});
  RopeConfig dynamic = plain(8, 10000.0);
  dynamic.scaling = RopeScaling::kDynamic;
  dynamic.factor = 8.0;
  expect_near(rope_inverse_frequencies(dynamic), {1.0, 0.1, 0.01, 0.001});
}

TEST(RopeTest, YarnAttentionFactor) {
  RopeConfig rope = plain(8, 10000.0);
  EXPECT_EQ(rope_attention_factor(rope), 1.0);
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 4.0;
  EXPECT_DOUBLE_EQ(rope_attention_factor(rope), 0.1 * std::log(4.0) + 1.0);
  rope.mscale = 2.0;
  rope.mscale_all_dim = 1.0;
  EXPECT_DOUBLE_EQ(rope_attention_factor(rope),
                   (0.2 * std::log(4.0) + 1.0) / (0.1 * std::log(4.0) + 1.0));
  rope.attention_factor = 1.25;
  EXPECT_EQ(rope_attention_factor(rope), 1.25);
}

TEST(RopeTest, FrequencyFactorsDivide) {
  RopeConfig rope = plain(4, 100.0);
  rope.frequency_factors = {2.0, 8.0};
  expect_near(rope_inverse_frequencies(rope), {0.5, 0.0125});
}

TEST(RopeTest, TableHoldsCosinesThenSinesOnAnyNumberOfThreads) {
  const RopeConfig rope = plain(4, 100.0);
  const std::vector<float> table = rope_table(rope, 10000, 1);
  ASSERT_EQ(table.size(), 40000u);
  for (int position : {0, 1, 4095, 4096, 9999}) {
    const float* row = table.data() + position * 4;
    EXPECT_EQ(row[0], static_cast<float>(std::cos(1.0 * position)));
    EXPECT_EQ(row[1], static_cast<float>(std::cos(0.1 * position)));
    EXPECT_EQ(row[2], static_cast<float>(std::sin(1.0 * position)));
    EXPECT_EQ(row[3], static_cast<float>(std::sin(0.1 * position)));
  }
  EXPECT_EQ(rope_table(rope, 10000, 3), table);
  EXPECT_TRUE(rope_table(RopeConfig(), 100, 2).empty());
}

}  // namespace
}  // namespace quire
