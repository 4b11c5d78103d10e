#include "base/files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace quire {
namespace {

TEST(ReadWholeFile, ReadsEveryByte) {
  const std::string path = testing::TempDir() + "quire_files_test";
  std::string bytes(200'000, '\0');  // more than one read, with zeros
  for (size_t i = 0; i < bytes.size(); i += 3) bytes[i] = static_cast<char>(i);
  std::ofstream(path, std::ios::binary) << bytes;
  const Result<std::string> text = read_whole_file(path, "the prompt");
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_TRUE(*text == bytes);
  std::filesystem::remove(path);
}

TEST(ReadWholeFile, RefusesAFolderAndAMissingFileByName) {
  const Result<std::string> folder = read_whole_file("/tmp", "the prompt");
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(folder.status().message(), "cannot read the prompt: /tmp is a directory; give a file");
  const Result<std::string> missing = read_whole_file("/nowhere/at/all", "the prompt");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_EQ(missing.status().message(),
            "cannot read the prompt /nowhere/at/all: No such file or directory");
}

}  // namespace
}  // namespace quire
