// Ids and decoded text equal transformers' on the multilingual sample, for tokenizers loaded from
// tokenizer.json and from GGUF metadata (scripts/golden/tokenizer_ids.py).
#include <gtest/gtest.h>

#include "text/tokenizer_files.h"

namespace quire::test {
namespace {

const std::string kFolder = QUIRE_TESTDATA "/text/tokenizers/";

void expect_golden(const Tokenizer& tokenizer, const std::string& name) {
  const Json sample = Json::parse(read_file(kFolder + "sample.json"));
  const Json golden = Json::parse(read_file(kFolder + name + ".ids.json"));
  ASSERT_GE(sample.size(), 50u);
  for (size_t i = 0; i < sample.size(); ++i) {
    const std::string text = sample[i];
    const auto ids =
        tokenizer.encode(text, {.add_special_tokens = true, .parse_special_tokens = true});
    ASSERT_TRUE(ids.ok()) << ids.status().message();
    EXPECT_EQ(*ids, golden["ids"][i].get<std::vector<TokenId>>()) << text;
    const auto plain =
        tokenizer.encode(text, {.add_special_tokens = false, .parse_special_tokens = false});
    EXPECT_EQ(*plain, golden["plain_ids"][i].get<std::vector<TokenId>>()) << text;
    EXPECT_EQ(*tokenizer.decode(*ids, false), golden["text"][i].get<std::string>());
    EXPECT_EQ(*tokenizer.decode(*ids, true), golden["text_without_special"][i].get<std::string>());
  }
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, FromTokenizerJsonEqualsTransformers) {
  const std::string name = GetParam();
  const auto tokenizer = Tokenizer::from_json(read_file(kFolder + name + ".tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  expect_golden(*tokenizer, name);
}

TEST_P(TokenizerGolden, FromGgufMetadataEqualsTransformers) {
  const std::string name = GetParam();
  const auto tokenizer =
      Tokenizer::from_gguf(spec_from_json(Json::parse(read_file(kFolder + name + ".gguf.json"))));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  expect_golden(*tokenizer, name);
}

INSTANTIATE_TEST_SUITE_P(Small,
                         TokenizerGolden,
                         testing::Values("llama2", "llama3", "qwen2", "smollm"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TokenizerGoldenModel, SmolLm2FileEqualsTransformers) {
  const std::string path = smollm2_path();
  if (path.empty()) GTEST_SKIP() << "no smollm2.gguf in the model cache (scripts/get-model)";
  const auto tokenizer = Tokenizer::from_gguf(GgufMetadata(path).spec());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
  expect_golden(*tokenizer, "smollm2");
}

}  // namespace
}  // namespace quire::test
