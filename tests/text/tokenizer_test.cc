#include "text/tokenizer.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(Tokenizer, Smoke) {
  GgufTokenizerSpec spec;
  spec.model = "gpt2";
  spec.pre = "gpt-2";
  spec.tokens = {"a", "b", "ab", "<s>"};
  spec.merges = {"a b"};
  spec.token_types = {1, 1, 1, 3};
  auto t = Tokenizer::from_gguf(spec);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(*t->encode("abab", {}), (std::vector<TokenId>{2, 2}));
  EXPECT_EQ(*t->decode(*t->encode("abba<s>", {})), "abba");
}

}  // namespace
}  // namespace quire
