#include "apps/sampling_flags.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace quire {
namespace {

Status apply(const char* text, SamplingParams& params, TextStream::Options& output) {
  const Result<Json> object = parse_json_document(text);
  EXPECT_TRUE(object.ok());
  return apply_sampling_fields(*object, {"id", "prompt"}, params, output);
}

TEST(SamplingFieldsTest, TakesEveryFieldOver) {
  SamplingParams params;
  TextStream::Options output;
  const Status status = apply(
      R"({"id": 1, "temperature": 0.5, "top_k": 7, "seed": 18446744073709551615, "stop": ["a", "b"],
          "logit_bias": {"12": -1.5}, "ignore_eos": true, "stop_token_ids": [3], "logprobs": 2,
          "max_tokens": 9, "min_p": null})",
      params,
      output);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(params.temperature, 0.5);
  EXPECT_EQ(params.top_k, 7);
  EXPECT_EQ(params.seed, UINT64_MAX);
  EXPECT_EQ(output.stop, (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(params.logit_bias.size(), 1u);
  EXPECT_EQ(params.logit_bias[0], (std::pair<int32_t, float>(12, -1.5f)));
  EXPECT_TRUE(params.ignore_eos);
  EXPECT_EQ(params.stop_token_ids, (std::vector<int32_t>{3}));
  EXPECT_EQ(params.logprobs, 2);
  EXPECT_EQ(params.max_tokens, 9);
  EXPECT_EQ(params.min_p, 0.0) << "null keeps the default";
}

TEST(SamplingFieldsTest, UnknownFieldNamesTheNearestKnownOne) {
  SamplingParams params;
  TextStream::Options output;
  const Status status = apply(R"({"temprature": 1})", params, output);
  EXPECT_EQ(status.message(), "unknown field \"temprature\"; did you mean \"temperature\"?");
}

TEST(SamplingFieldsTest, WrongTypesAndHugeIntegersAreRefused) {
  SamplingParams params;
  TextStream::Options output;
  for (const char* text : {R"({"temperature": "hot"})",
                           R"({"max_tokens": 99999999999})",
                           R"({"max_tokens": 1.5})",
                           R"({"ignore_eos": 1})",
                           R"({"stop": 4})",
                           R"({"stop": [4]})",
                           R"({"stop_token_ids": [4294967296]})",
                           R"({"logit_bias": {"x": 1}})",
                           R"({"logit_bias": [1]})"}) {
    EXPECT_EQ(apply(text, params, output).code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(NearestTest, FarWordsHaveNoNeighbour) {
  EXPECT_EQ(nearest("top_q", {"top_p", "top_k", "seed"}), "top_p");
  EXPECT_EQ(nearest("completely_other", {"top_p", "seed"}), "");
}

}  // namespace
}  // namespace quire
