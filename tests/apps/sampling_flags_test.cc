#include "apps/sampling_flags.h"

#include <gtest/gtest.h>

#include <algorithm>
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

TEST(SamplingFieldsTest, MessagesSayWhatIsExpectedAndQuoteNoLibrary) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"logit_bias": {"a": 1}})", "must be an object of token ids and numbers"},
      {R"({"logit_bias": {"12abc": 1}})", "must be an object of token ids and numbers"},
      {R"({"logit_bias": {"1": "x"}})", "must be an object of token ids and numbers"},
      {R"({"stop": [1]})", "must be a text or an array of texts"},
      {R"({"stop": ""})", "none of them empty"},
      {R"({"stop": ["a", ""]})", "none of them empty"},
      {R"({"seed": -1})", "must be an integer in [0, 18446744073709551615], got -1"},
      {R"({"banned_token_ids": ["x"]})", "must be an array of token ids"},
  };
  for (const auto& [text, part] : cases) {
    SamplingParams params;
    TextStream::Options output;
    const Status status = apply(text, params, output);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    for (const char* inner : {"exception", "stoi"}) {
      EXPECT_EQ(status.message().find(inner), std::string::npos) << status.message();
    }
  }
}

TEST(SamplingFieldsTest, BannedTokensReachTheSampler) {
  SamplingParams params;
  TextStream::Options output;
  ASSERT_TRUE(apply(R"({"banned_token_ids": [7, 8]})", params, output).ok());
  EXPECT_EQ(params.banned_token_ids, (std::vector<int32_t>{7, 8}));
}

// The message of the parse error, "" when there is none.
std::string parse_flags(std::vector<std::string> arguments, SamplingFlags& flags, bool json) {
  CommandLine line("quire", "test");
  CommandLine run = line.subcommand("run", "test");
  bool json_flag = false;
  std::string model;
  if (json) run.flag("--json", json_flag, "");
  run.option("MODEL", model, "");
  add_sampling_flags(run, flags);
  arguments.insert(arguments.begin(), "run");
  const auto parsed = line.parse(arguments);
  if (!parsed.ok()) return parsed.status().message();
  EXPECT_EQ(model.empty() ? "m" : model, "m") << "a flag swallowed the model";
  return "";
}

TEST(SamplingFlagsTest, TokenFlagsReachTheSampler) {
  SamplingFlags flags;
  ASSERT_EQ(parse_flags({"--logit-bias",
                         "42:-1.5",
                         "--allowed-token-ids",
                         "1,2",
                         "m",
                         "--logit-bias",
                         "7:3",
                         "--banned-token-ids",
                         "3",
                         "--stop",
                         "a",
                         "--stop",
                         "b",
                         "--seed",
                         "18446744073709551615"},
                        flags,
                        true),
            "");
  const SamplingParams params = flags.over({});
  EXPECT_EQ(params.logit_bias, (std::vector<std::pair<int32_t, float>>{{42, -1.5f}, {7, 3.0f}}));
  EXPECT_EQ(params.allowed_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(params.banned_token_ids, (std::vector<int32_t>{3}));
  EXPECT_EQ(flags.output().stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(params.seed, UINT64_MAX);
}

TEST(SamplingFlagsTest, ValuesOutOfRangeNameTheFlagThatWasTyped) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--top-p", "2"}, "--top-p must be in (0, 1], got 2"},
      {{"--top-k", "-7"}, "--top-k must be >= 1, or 0 or -1 to turn it off, got -7"},
      {{"--min-tokens", "9", "--max-tokens", "5"}, "--max-tokens, which is 5"},
      {{"--logit-bias", "5"}, "--logit-bias must be ID:BIAS, as in 42:-1.5, got 5"},
      {{"--logit-bias", "5x:1"}, "--logit-bias must be ID:BIAS"},
      {{"--logit-bias", "5:101"}, "--logit-bias must be in [-100, 100], got 101"},
      {{"--banned-token-ids", "-3"}, "--banned-token-ids must be token ids"},
      {{"--stop", ""}, "--stop must not hold an empty text"},
      {{"--stop", "a\xff"}, "--stop is not valid UTF-8 at byte 1"},
      {{"--seed", "-1"}, "--seed must be an integer in [0, 18446744073709551615], got -1"},
      {{"--logprobs", "2"}, "--logprobs has no effect without a JSON result"},
  };
  for (const auto& [arguments, part] : cases) {
    SamplingFlags flags;
    const std::string message = parse_flags(arguments, flags, true);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  SamplingFlags flags;
  EXPECT_EQ(parse_flags({"--logprobs", "2", "--json"}, flags, true), "");
  EXPECT_NE(parse_flags({"--logprobs", "2"}, flags, false), "") << "chat shows none";
}

TEST(NearestTest, FarWordsHaveNoNeighbour) {
  EXPECT_EQ(nearest("top_q", {"top_p", "top_k", "seed"}), "top_p");
  EXPECT_EQ(nearest("completely_other", {"top_p", "seed"}), "");
}

}  // namespace
}  // namespace quire
