#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "text/tokenizer_files.h"

namespace quire::test {
namespace {

const std::string kFolder = QUIRE_TESTDATA "/text/tokenizers/";
constexpr Tokenizer::EncodeOptions kPlain = {.add_special_tokens = false};
constexpr Tokenizer::EncodeOptions kParse = {.add_special_tokens = true,
                                             .parse_special_tokens = true};

Tokenizer load(const std::string& name) {
  const Json json = Json::parse(read_file(kFolder + name + ".gguf.json"));
  return Tokenizer::from_gguf(spec_from_json(json)).value();
}

GgufTokenizerSpec tiny() {
  GgufTokenizerSpec spec;
  spec.model = "gpt2";
  spec.pre = "gpt-2";
  spec.tokens = {"a", "b", "ab", "<s>", "</s>", "<think>"};
  spec.merges = {"a b"};
  spec.token_types = {1, 1, 1, 3, 3, 4};
  spec.bos = 3;
  spec.eos = 4;
  return spec;
}

void expect_refused(const GgufTokenizerSpec& spec, StatusCode code, const std::string& part) {
  const auto tokenizer = Tokenizer::from_gguf(spec);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().code(), code);
  EXPECT_NE(tokenizer.status().message().find(part), std::string::npos)
      << tokenizer.status().message();
}

TEST(Tokenizer, AddsBosAndEosAsTheMetadataSays) {
  GgufTokenizerSpec spec = tiny();
  EXPECT_EQ(*Tokenizer::from_gguf(spec)->encode("ab", {}), (std::vector<TokenId>{2}));
  spec.add_bos = true;
  spec.add_eos = true;
  const Tokenizer tokenizer = Tokenizer::from_gguf(spec).value();
  EXPECT_EQ(*tokenizer.encode("ab", {}), (std::vector<TokenId>{3, 2, 4}));
  EXPECT_EQ(*tokenizer.encode("", {}), (std::vector<TokenId>{3, 4}));
  EXPECT_EQ(*tokenizer.encode("ab", kPlain), (std::vector<TokenId>{2}));
}

TEST(Tokenizer, KnowsItsVocabulary) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(tiny()).value();
  EXPECT_EQ(tokenizer.vocab_size(), 6);
  EXPECT_EQ(tokenizer.token_to_id("ab"), 2);
  EXPECT_EQ(tokenizer.token_to_id("<s>"), 3);
  EXPECT_EQ(tokenizer.token_to_id("nope"), std::nullopt);
  EXPECT_EQ(tokenizer.token_to_id("\xff"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(2), "ab");
  EXPECT_EQ(tokenizer.id_to_token(6), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(-1), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(3));
  EXPECT_FALSE(tokenizer.is_special(5));  // user-defined: recognised in text, but shown
  EXPECT_FALSE(tokenizer.is_special(-1));
}

TEST(Tokenizer, SpecialTokensInTextAreTextUnlessAskedFor) {
  for (const char* name : {"llama2", "llama3", "qwen2", "smollm"}) {
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = load(name);
    for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
      if (!tokenizer.is_special(id)) continue;
      const std::string text = *tokenizer.id_to_token(id);
      const auto parsed = *tokenizer.encode(text, {false, true});
      EXPECT_EQ(parsed, std::vector<TokenId>{id});
      const auto plain = *tokenizer.encode("x" + text + text, kPlain);
      for (const TokenId each : plain) EXPECT_FALSE(tokenizer.is_special(each)) << text;
      EXPECT_EQ(*tokenizer.decode(plain), "x" + text + text);
    }
  }
}

TEST(Tokenizer, ASpecialTokenThatMergesSpellIsStillText) {
  GgufTokenizerSpec spec = tiny();
  spec.token_types[2] = 3;  // "ab" is a control token and the product of a merge
  for (const char* pre : {"gpt-2", "llama-bpe"}) {
    spec.pre = pre;
    spec.add_bos = true;
    const Tokenizer tokenizer = Tokenizer::from_gguf(spec).value();
    EXPECT_EQ(*tokenizer.encode("ab", {}), (std::vector<TokenId>{3, 0, 1})) << pre;
    EXPECT_EQ(*tokenizer.encode("ab", kParse), (std::vector<TokenId>{3, 2})) << pre;
  }
}

TEST(Tokenizer, PreTokenizerNamesDecideWhatMerges) {
  GgufTokenizerSpec spec = tiny();
  spec.tokens = {"1", "2", "12", "\u0120", "\u01201", "a"};
  spec.merges = {"1 2", "\u0120 1"};
  spec.token_types = {};
  spec.bos = spec.eos = std::nullopt;
  const auto ids = [&](const char* pre, const char* text) {
    spec.pre = pre;
    return *Tokenizer::from_gguf(spec)->encode(text, {});
  };
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(ids("default", " 112"), (Ids{4, 2}));
  EXPECT_EQ(ids("", " 112"), (Ids{4, 2}));
  EXPECT_EQ(ids("gpt-2", " 112"), (Ids{4, 2}));
  EXPECT_EQ(ids("smollm", " 112"), (Ids{3, 0, 0, 1}));
  EXPECT_EQ(ids("qwen2", " 112"), (Ids{3, 0, 0, 1}));
  EXPECT_EQ(ids("llama-bpe", " 112112"), (Ids{3, 0, 2, 0, 2}));
  // llama-bpe takes a whole word that is a token, whether or not merges lead to it.
  spec.merges = {};
  EXPECT_EQ(ids("gpt-2", "12"), (Ids{0, 1}));
  EXPECT_EQ(ids("llama-bpe", "12"), (Ids{2}));
}

TEST(Tokenizer, EqualScoresMergeTheLongerLeftPartFirst) {
  GgufTokenizerSpec spec;
  spec.model = "llama";
  spec.tokens = {"<unk>", "a", "b", "c", "ab", "bc", "abc"};
  spec.scores = {0, 0, 0, 0, -1, -1, -2};
  spec.token_types = {2, 1, 1, 1, 1, 1, 1};
  spec.unk = 0;
  spec.add_space_prefix = false;
  const auto first = [&] { return Tokenizer::from_gguf(spec)->encode("abc", {})->front(); };
  EXPECT_EQ(first(), 6);
  spec.tokens[6] = "xyz";
  EXPECT_EQ(first(), 4);  // (a, b) comes before (b, c): ids in order
  spec.scores[4] = -3;
  EXPECT_EQ(first(), 1);  // the better score merges first
  spec.tokens = {"<unk>", "a", "b", "c", "d", "ab", "cd", "abc"};
  spec.scores = {0, 0, 0, 0, 0, -1, -2, -2};
  spec.token_types = {};
  EXPECT_EQ(*Tokenizer::from_gguf(spec)->encode("abcd", {}), (std::vector<TokenId>{7, 4}));
}

TEST(Tokenizer, InvalidUtf8NamesTheFirstBadByte) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(tiny()).value();
  const std::pair<std::string, std::string> cases[] = {
      {"ab\xff", "0xff at offset 2 of 3"},
      {"\x80", "0x80 at offset 0 of 1"},
      {"a\xe2\x82", "0xe2 at offset 1 of 3"},             // cut short
      {"\xc3\xa9\xed\xa0\x80", "0xed at offset 2 of 5"},  // a surrogate
      {"\xc0\xaf", "0xc0 at offset 0 of 2"},              // overlong
  };
  for (const auto& [text, part] : cases) {
    const auto ids = tokenizer.encode(text, {});
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(ids.status().message().find(part), std::string::npos) << ids.status().message();
  }
}

TEST(Tokenizer, UnknownKindsAreRefusedWithTheListOfSupportedOnes) {
  GgufTokenizerSpec spec = tiny();
  spec.pre = "tekken";
  expect_refused(
      spec, StatusCode::kUnsupported, "\"tekken\"; supported: default, deepseek-r1-qwen");
  spec = tiny();
  spec.model = "t5";
  expect_refused(spec, StatusCode::kUnsupported, "\"t5\"; supported: gpt2");
}

TEST(Tokenizer, DamagedMetadataIsRefused) {
  const auto with = [](auto change) {
    GgufTokenizerSpec spec = tiny();
    change(spec);
    return spec;
  };
  const auto expect = [&](auto change, const char* part) {
    expect_refused(with(change), StatusCode::kDataLoss, part);
  };
  using Spec = GgufTokenizerSpec;
  expect([](Spec& s) { s.tokens.clear(); }, "has 0 entries");
  expect([](Spec& s) { s.merges = {"ab"}; }, "merge 0 is \"ab\", not two tokens");
  expect([](Spec& s) { s.merges = {"a z"}; }, "needs token \"z\"");
  expect([](Spec& s) { s.merges = {"b a"}; }, "needs token \"ba\"");
  expect([](Spec& s) { s.token_types.pop_back(); }, "token_type has 5 entries");
  expect([](Spec& s) { s.scores = {1.0f}; }, "scores has 1 entries");
  expect([](Spec& s) { s.bos = 6; }, "bos_token_id is 6 but there are 6 tokens");
  expect([](Spec& s) { s.tokens[1] = "\xff"; }, "token 1 is not valid UTF-8 at byte 0");
  expect([](Spec& s) { s.tokens[1] = std::string(5000, 'a'); }, "has 5000 bytes, limit 4096");
  expect([](Spec& s) { s.model = "llama", s.merges.clear(); }, "needs tokenizer.ggml.scores");
}

TEST(Tokenizer, DamagedJsonIsRefused) {
  const std::string good = read_file(kFolder + "smollm.tokenizer.json");
  for (const std::string& bad : {std::string(),
                                 std::string("{}"),
                                 std::string("\xff\xff"),
                                 good.substr(0, good.size() / 2)}) {
    const auto tokenizer = Tokenizer::from_json(bad);
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_EQ(tokenizer.status().code(), StatusCode::kDataLoss) << tokenizer.status().message();
  }
  std::mt19937 rng(5);
  for (int round = 0; round < 150; ++round) {  // any outcome but a crash
    std::string json = good;
    for (int k = 0; k < 4; ++k) json[rng() % json.size()] = static_cast<char>(rng());
    const auto tokenizer = Tokenizer::from_json(json);
    if (tokenizer.ok()) (void)tokenizer->encode("some text", {});
  }
}

TEST(Tokenizer, TruncationInAJsonFileDoesNotCutPrompts) {
  Json json = Json::parse(read_file(kFolder + "smollm.tokenizer.json"));
  json["truncation"] = {
      {"direction", "Right"}, {"max_length", 4}, {"strategy", "LongestFirst"}, {"stride", 0}};
  const Tokenizer tokenizer = Tokenizer::from_json(json.dump()).value();
  EXPECT_GT(tokenizer.encode("a longer text of several words", {})->size(), 4u);
}

// Of this thread alone: wall time depends on what else the machine does.
double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const double start = thread_cpu_seconds();
  EXPECT_TRUE(tokenizer.encode(text, kPlain).ok());
  return thread_cpu_seconds() - start;
}

TEST(Tokenizer, EncodingIsNotQuadratic) {
  for (const char* name : {"llama2", "llama3", "smollm"}) {
    const Tokenizer tokenizer = load(name);
    for (const std::string unit : {"word and 12 ", "aA1", "\xe6\xbc\xa2", " ", "<think>"}) {
      std::string small;
      while (small.size() < 1 << 16) small += unit;
      std::string large;
      for (int i = 0; i < 16; ++i) large += small;  // 1 MB
      const double one =
          std::min(seconds_to_encode(tokenizer, small), seconds_to_encode(tokenizer, small));
      // Linear is 16 times, quadratic 256.
      EXPECT_LT(seconds_to_encode(tokenizer, large), 80 * one + 0.2) << name << " " << unit;
    }
  }
}

TEST(Tokenizer, ConcurrentCallsInBothModesGiveTheSameIds) {
  const Tokenizer tokenizer = load("llama3");
  const Json sample = Json::parse(read_file(kFolder + "sample.json"));
  const std::string text = sample.back().get<std::string>() + "<|im_end|>";
  const auto plain = *tokenizer.encode(text, kPlain);
  const auto parsed = *tokenizer.encode(text, kParse);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) {
        const bool parse = (i + t) % 2 == 0;
        EXPECT_EQ(*tokenizer.encode(text, parse ? kParse : kPlain), parse ? parsed : plain);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace quire::test
