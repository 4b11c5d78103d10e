// Every template of tests/data/text/chat_templates renders as transformers rendered it
// (scripts/golden/chat_templates.py).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/chat_template.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(QUIRE_TESTDATA "/text/chat_templates")) {
    names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class ChatTemplateGolden : public testing::TestWithParam<std::string> {};

TEST_P(ChatTemplateGolden, RendersAsTransformersDoes) {
  std::ifstream file(QUIRE_TESTDATA "/text/chat_templates/" + GetParam() + ".json");
  const Json golden = Json::parse(file);
  auto compiled = ChatTemplate::compile(golden["template"].get<std::string>());
  ASSERT_TRUE(compiled.ok()) << compiled.status().message();
  ASSERT_FALSE(golden["cases"].empty());
  const ChatTemplate::RenderOptions options = {.local_seconds = golden["local_seconds"]};
  for (const Json& test : golden["cases"]) {
    const std::string context = test["context"].dump();
    auto text = compiled->render(context, options);
    if (test.contains("error")) {
      ASSERT_FALSE(text.ok()) << context;
      EXPECT_EQ(text.status().code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(text.status().message(), test["error"].get<std::string>());
    } else {
      ASSERT_TRUE(text.ok()) << text.status().message() << "\n" << context;
      EXPECT_EQ(*text, test["expected"].get<std::string>()) << context;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Published,
                         ChatTemplateGolden,
                         testing::ValuesIn(golden_names()),
                         [](const auto& info) { return info.param; });

TEST(ChatTemplateGoldenFiles, CoversAtLeastTwelveTemplates) {
  EXPECT_GE(golden_names().size(), 12u);
}

}  // namespace
}  // namespace quire
