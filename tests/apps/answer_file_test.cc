#include "apps/answer_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>

namespace quire {
namespace {

class AnswerFileTest : public testing::Test {
 protected:
  AnswerFileTest() {
    folder_ = std::filesystem::temp_directory_path() /
              ("quire_answer_file_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  ~AnswerFileTest() override { std::filesystem::remove_all(folder_); }

  std::string path(const char* name) const { return folder_ / name; }
  std::string write(const char* name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  std::string read(const char* name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_;
};

TEST_F(AnswerFileTest, KeepsAnswersDropsTornLastLineAndFailedLines) {
  write("out",
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":2,\"error\":\"no\"}\n{\"id\":3,\"text\":\"y\"}\n{"
        "\"id\":\"to");
  {
    auto file = AnswerFile::open(path("out"));
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->answered_ids(), (std::unordered_set<std::string>{"\"a\"", "3"}));
    ASSERT_TRUE((*file)->append({{"id", 4}}).ok());
  }
  EXPECT_EQ(read("out"), "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":3,\"text\":\"y\"}\n{\"id\":4}\n");
}

TEST_F(AnswerFileTest, ACompleteRecordWithoutItsNewlineIsTorn) {
  write("out", "{\"id\":1,\"text\":\"x\"}\n{\"id\":2,\"text\":\"y\"}");
  auto file = AnswerFile::open(path("out"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->answered_ids(), (std::unordered_set<std::string>{"1"}));
}

TEST_F(AnswerFileTest, UnwritableOutputIsRefusedWithItsName) {
  auto file = AnswerFile::open(path("missing/out"));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(file.status().message().find("missing/out"), std::string::npos);
}

TEST_F(AnswerFileTest, InputSkipsAnsweredIdsAndEmptyLines) {
  write("in", "{\"id\":\"a\"}\n\n{\"id\":\"b\"}\n{\"prompt\":\"x\"}\n");
  auto in = InputLines::open(path("in"), {"\"a\""});
  ASSERT_TRUE(in.ok());
  EXPECT_EQ((*in)->total_lines(), 3);
  std::optional<InputLine> line = (*in)->next();
  ASSERT_TRUE(line);
  EXPECT_EQ(line->id, "b");
  EXPECT_EQ(line->number, 3);
  line = (*in)->next();
  ASSERT_TRUE(line);
  EXPECT_EQ(line->id, 4) << "a line without id is known by its number";
  EXPECT_FALSE((*in)->next());
  EXPECT_EQ((*in)->num_skipped(), 1);
}

TEST_F(AnswerFileTest, BadLinesCarryTheirErrorAndDoNotEndTheRun) {
  write("in", "{\"id\":1\nnot json\n{\"id\":[]}\n{\"id\":5}\n{\"id\":5}\n");
  auto in = InputLines::open(path("in"), {});
  ASSERT_TRUE(in.ok());
  for (const char* part : {"invalid JSON", "invalid JSON", "must be a string or an integer"}) {
    std::optional<InputLine> line = (*in)->next();
    ASSERT_TRUE(line);
    EXPECT_NE(line->status.message().find(part), std::string::npos) << line->status.message();
    EXPECT_EQ(line->id, line->number);
  }
  EXPECT_TRUE((*in)->next()->status.ok());
  EXPECT_NE((*in)->next()->status.message().find("earlier line"), std::string::npos);
}

}  // namespace
}  // namespace quire
