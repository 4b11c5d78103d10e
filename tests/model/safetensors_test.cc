#include "model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/temp_dir.h"

namespace quire {
namespace {

using testing::TempDir;

std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

Result<Checkpoint> read(const std::string& bytes) {
  Checkpoint checkpoint;
  QUIRE_RETURN_IF_ERROR(
      read_safetensors(InputFile::from_memory("test.safetensors", bytes), &checkpoint));
  QUIRE_RETURN_IF_ERROR(checkpoint.check_no_overlap());
  return checkpoint;
}

void expect_error(const std::string& bytes, StatusCode code, const std::string& text) {
  Result<Checkpoint> file = read(bytes);
  ASSERT_FALSE(file.ok()) << "wanted: " << text;
  EXPECT_EQ(file.status().code(), code) << file.status().message();
  EXPECT_NE(file.status().message().find(text), std::string::npos) << file.status().message();
}

std::string entry(const std::string& name,
                  const std::string& dtype,
                  const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape +
         "],\"data_offsets\":[" + offsets + "]}";
}

std::string object(const std::string& members) {
  return std::string("{").append(members).append("}");
}

const std::string kGood = "{\"__metadata__\":{\"format\":\"pt\"}," +
                          entry("a", "F32", "2, 1", "0, 8") + "," +
                          entry("b", "I64", "1", "16, 24") + "}   ";

TEST(SafetensorsTest, ReadsTensorsAlsoWithGapsBetween) {
  const float values[] = {1.0f, 2.0f};
  std::string data(24, '\0');
  std::memcpy(data.data(), values, 8);
  Result<Checkpoint> file = read(file_of(kGood, data));
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->tensors().size(), 2u);
  const TensorInfo* a = file->find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 1}));
  float got = 0;
  ASSERT_TRUE(file->read(*a, 4, 4, &got).ok());
  EXPECT_EQ(got, 2.0f);
}

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = file_of(kGood, std::string(24, '\0'));
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_FALSE(read(whole.substr(0, size)).ok()) << size;
  }
}

TEST(SafetensorsTest, RefusesDamagedHeaders) {
  const std::string data(24, '\0');
  std::string huge(8, '\xff');
  expect_error(huge + "{}", StatusCode::kDataLoss, "the limit is 100000000");
  expect_error(file_of("{", data), StatusCode::kDataLoss, "not readable as JSON");
  expect_error(file_of("[]", data), StatusCode::kDataLoss, "not a JSON object");
  expect_error(file_of(std::string(30, '['), data), StatusCode::kDataLoss, "nested deeper");
  auto one = [&](const std::string& text) { return file_of(object(text), data); };
  expect_error(one("\"a\":3"), StatusCode::kDataLoss, "tensor a has no \"dtype\"");
  expect_error(one(entry("a", "F32", "2", "0,4")), StatusCode::kDataLoss, "takes 8 bytes");
  expect_error(one(entry("a", "F32", "2", "8,0")), StatusCode::kDataLoss, "increasing pair");
  expect_error(one(entry("a", "F32", "2", "-8,0")), StatusCode::kDataLoss, "increasing pair");
  expect_error(one(entry("a", "F32", "2", "0")), StatusCode::kDataLoss, "no \"data_offsets\"");
  expect_error(one(entry("a", "F32", "-2", "0,8")), StatusCode::kDataLoss, "natural number");
  expect_error(one(entry("a", "F32", "1.5", "0,8")), StatusCode::kDataLoss, "natural number");
  expect_error(one(entry("a", "F32", "1,1,1,1,1,1,1,1,1", "0,4")),
               StatusCode::kDataLoss,
               "more than 8 dimensions");
  expect_error(one(entry("a", "F32", "4294967296,4294967296", "0,8")),
               StatusCode::kDataLoss,
               "multiply to more bytes");
  expect_error(one(entry("a", "F32", "2", "24,32")), StatusCode::kDataLoss, "truncated or damaged");
  expect_error(one(entry("a", "F32", "2", "9223372036854775000,9223372036854775008")),
               StatusCode::kDataLoss,
               "tensor a");
  expect_error(one(entry("a", "F32", "2", "0,8") + "," + entry("b", "F32", "2", "4,12")),
               StatusCode::kDataLoss,
               "tensors a and b overlap");
  expect_error(one(entry("a", "F32", "2", "0,8") + "," + entry("a", "F32", "2", "8,16")),
               StatusCode::kDataLoss,
               "listed twice");
}

TEST(SafetensorsTest, UnknownTypeListsTheSupportedOnes) {
  expect_error(file_of(object(entry("a", "F8_E4M3", "8", "0,8")), std::string(8, '\0')),
               StatusCode::kUnsupported,
               "tensor a has type F8_E4M3; supported types: F32, F16, BF16");
}

TEST(SafetensorsTest, OpensShardsOfAnIndex) {
  TempDir dir;
  dir.write("s1", file_of(object(entry("a", "F32", "1", "0,4")), "aaaa"));
  dir.write("s2", file_of(object(entry("b", "F32", "1", "0,4")), "bbbb"));
  dir.write("model.safetensors.index.json", R"({"weight_map":{"a":"s1","b":"s2"}})");
  Result<Checkpoint> checkpoint = open_safetensors_folder(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  char text[4];
  ASSERT_TRUE(checkpoint->read(*checkpoint->find("b"), 0, 4, text).ok());
  EXPECT_EQ(std::string(text, 4), "bbbb");
}

TEST(SafetensorsTest, RefusesIndexesThatPointElsewhere) {
  TempDir dir;
  for (const char* bad : {"../s1", "/etc/passwd", "..", ""}) {
    dir.write("model.safetensors.index.json",
              std::string(R"({"weight_map":{"a":")") + bad + "\"}}");
    Result<Checkpoint> checkpoint = open_safetensors_folder(dir.path());
    ASSERT_FALSE(checkpoint.ok()) << bad;
    EXPECT_NE(checkpoint.status().message().find("not a plain file name"), std::string::npos);
  }
  dir.write("model.safetensors.index.json", R"({"weight_map":{"a":"gone"}})");
  Result<Checkpoint> checkpoint = open_safetensors_folder(dir.path());
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.status().code(), StatusCode::kNotFound);
}

TEST(SafetensorsTest, TensorsMustBeWhereTheIndexSays) {
  TempDir dir;
  dir.write("s1", file_of("{" + entry("a", "F32", "1", "0,4") + "}", "aaaa"));
  dir.write("s2", file_of("{" + entry("b", "F32", "1", "0,4") + "}", "bbbb"));
  const auto message = [&](const char* map) {
    dir.write("model.safetensors.index.json", std::string(R"({"weight_map":)") + map + "}");
    return open_safetensors_folder(dir.path()).status().message();
  };
  EXPECT_NE(message(R"({"a":"s2","b":"s1"})").find("s2 holds tensor a, but s1 does"),
            std::string::npos);
  EXPECT_NE(message(R"({"a":"s1","b":"s2","c":"s2"})").find("s2 holds tensor c, but no file does"),
            std::string::npos);
  EXPECT_NE(message(R"({"a":"s1","b":"s3"})").find("s3 is missing: the download"),
            std::string::npos);
}

TEST(SafetensorsTest, FolderWithoutWeightsSaysWhatIsRead) {
  TempDir dir;
  Result<Checkpoint> checkpoint = open_safetensors_folder(dir.path());
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_NE(checkpoint.status().message().find("convert them to safetensors"), std::string::npos);
}

TEST(InputFileTest, NoticesChangeAndTruncation) {
  TempDir dir;
  auto path = dir.write("f", "0123456789");
  Result<InputFile> file = InputFile::open(path);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->check_unchanged().ok());
  std::filesystem::resize_file(path, 4);
  char bytes[10];
  Status status = file->read(0, 10, bytes);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("truncated while it was read"), std::string::npos);
  status = file->check_unchanged();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("changed while it was loaded (10 bytes at the start, 4 now)"),
            std::string::npos)
      << status.message();
}

TEST(InputFileTest, NoticesARewriteOfTheSameSize) {
  TempDir dir;
  auto path = dir.write("f", "0123456789");
  Result<InputFile> file = InputFile::open(path);
  ASSERT_TRUE(file.ok());
  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::milliseconds(5));
  EXPECT_FALSE(file->check_unchanged().ok());
}

TEST(InputFileTest, RefusesDirectoriesAndMissingFiles) {
  TempDir dir;
  EXPECT_EQ(InputFile::open(dir.path()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(InputFile::open(dir.path() / "no").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace quire
