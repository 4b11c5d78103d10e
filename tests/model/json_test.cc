#include "base/json.h"

#include <gtest/gtest.h>

namespace quire {
namespace {

TEST(JsonTest, ReadsEveryKindOfValue) {
  Result<JsonValue> json = parse_json(R"({"i":-3,"d":0.5,"e":1e4,"b":true,"n":null,"s":"aé",)"
                                      R"("l":[1,[2]],"big":18446744073709551615})");
  ASSERT_TRUE(json.ok()) << json.status().message();
  EXPECT_EQ(json->get("i")->integer(), -3);
  EXPECT_EQ(json->get("d")->number(), 0.5);
  EXPECT_EQ(json->get("d")->integer(), std::nullopt);
  EXPECT_EQ(json->get("e")->integer(), 10000);
  EXPECT_EQ(json->get("b")->boolean(), true);
  EXPECT_EQ(json->get("n"), nullptr);
  ASSERT_NE(json->find("n"), nullptr);
  EXPECT_TRUE(json->find("n")->is_null());
  EXPECT_EQ(*json->get("s")->string(), "aé");
  EXPECT_EQ((*json->get("l")->array())[1].array()->front().integer(), 2);
  EXPECT_EQ(json->get("big")->integer(), std::nullopt);
  EXPECT_EQ(json->get("absent"), nullptr);
  EXPECT_EQ(json->object()->front().first, "i");
}

TEST(JsonTest, LastOfEqualKeysCounts) {
  EXPECT_EQ(parse_json(R"({"a":1,"a":2})")->get("a")->integer(), 2);
}

TEST(JsonTest, RefusesDamagedTextWithThePlace) {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\"}", "nul", "1 2", "\"\xff\"", "1e999", "{1:2}"}) {
    Result<JsonValue> json = parse_json(text);
    ASSERT_FALSE(json.ok()) << text;
    EXPECT_EQ(json.status().code(), StatusCode::kDataLoss);
    EXPECT_TRUE(json.status().message().starts_with("not readable as JSON: "))
        << json.status().message();
  }
  EXPECT_NE(parse_json("{\n\"a\": x}").status().message().find("line 2, column 6"),
            std::string::npos)
      << parse_json("{\n\"a\": x}").status().message();
}

TEST(JsonTest, BoundsDepthAndSize) {
  const std::string deep = std::string(65, '[') + std::string(65, ']');
  EXPECT_NE(parse_json(deep).status().message().find("deeper than 64"), std::string::npos);
  EXPECT_TRUE(parse_json(deep.substr(1, 128)).ok());
  EXPECT_FALSE(parse_json(std::string(1 << 20, '[')).ok());
  EXPECT_NE(parse_json("[1,2,3]", {.max_depth = 4, .max_values = 3})
                .status()
                .message()
                .find("more than 3 JSON values"),
            std::string::npos);
}

}  // namespace
}  // namespace quire
