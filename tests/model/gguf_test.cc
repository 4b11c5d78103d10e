#include "model/gguf.h"

#include <gtest/gtest.h>

#include "model/gguf_builder.h"
#include "model/temp_dir.h"

namespace quire {
namespace {

using testing::GgufBuilder;
using testing::TempDir;

Result<GgufFile> read(const std::string& bytes) {
  return read_gguf(InputFile::from_memory("test.gguf", bytes));
}

GgufBuilder small() {
  GgufBuilder builder;
  builder.string("general.architecture", "llama")
      .u32("answer", 42)
      .f32("half", 0.5f)
      .strings("words", {"a", "", "ccc"})
      .f32_tensor("x", {3, 2}, {1, 2, 3, 4, 5, 6})
      .f32_tensor("y", {2}, {7, 8});
  return builder;
}

void expect_error(const std::string& bytes, StatusCode code, const std::string& text) {
  Result<GgufFile> file = read(bytes);
  ASSERT_FALSE(file.ok()) << "wanted: " << text;
  EXPECT_EQ(file.status().code(), code) << file.status().message();
  EXPECT_NE(file.status().message().find(text), std::string::npos) << file.status().message();
}

TEST(GgufTest, ReadsMetadataAndTensorsOfVersions2And3) {
  for (uint32_t version : {2u, 3u}) {
    GgufBuilder builder = small();
    builder.version = version;
    Result<GgufFile> file = read(builder.build());
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ(*file->metadata.string("general.architecture"), "llama");
    EXPECT_EQ(file->metadata.integer("answer"), 42);
    EXPECT_EQ(file->metadata.number("half"), 0.5);
    EXPECT_EQ(file->metadata.number("answer"), 42.0);
    EXPECT_EQ(file->metadata.integer("half"), std::nullopt);
    EXPECT_EQ(*file->metadata.array<std::string>("words"),
              (std::vector<std::string>{"a", "", "ccc"}));
    const TensorInfo* x = file->checkpoint.find("x");
    ASSERT_NE(x, nullptr);
    EXPECT_EQ(x->shape, (std::vector<int64_t>{2, 3}));
    float values[6];
    ASSERT_TRUE(file->checkpoint.read(*x, 0, sizeof(values), values).ok());
    EXPECT_EQ(values[5], 6.0f);
    float last;
    ASSERT_TRUE(file->checkpoint.read(*file->checkpoint.find("y"), 4, 4, &last).ok());
    EXPECT_EQ(last, 8.0f);
  }
}

TEST(GgufTest, ReadsEveryMetadataType) {
  auto e = [](auto value) { return GgufBuilder::encode(value); };
  GgufBuilder builder;
  builder.raw("u8", 0, e(uint8_t{200}))
      .raw("i8", 1, e(int8_t{-3}))
      .raw("u16", 2, e(uint16_t{65535}))
      .raw("i16", 3, e(int16_t{-300}))
      .raw("u32", 4, e(uint32_t{4000000000u}))
      .raw("i32", 5, e(int32_t{-5}))
      .raw("bool", 7, e(uint8_t{1}))
      .raw("u64", 10, e(uint64_t{1} << 40))
      .raw("i64", 11, e(int64_t{-9}))
      .raw("f64", 12, e(0.25))
      .raw("floats", 9, e(uint32_t{6}) + e(uint64_t{2}) + e(1.5f) + e(2.5f))
      .raw("doubles", 9, e(uint32_t{12}) + e(uint64_t{1}) + e(3.5))
      .raw("nested",
           9,
           e(uint32_t{9}) + e(uint64_t{2}) + e(uint32_t{5}) + e(uint64_t{1}) + e(int32_t{-1}) +
               e(uint32_t{0}) + e(uint64_t{2}) + "ab");
  Result<GgufFile> file = read(builder.build());
  ASSERT_TRUE(file.ok()) << file.status().message();
  const GgufMetadata& m = file->metadata;
  EXPECT_EQ(m.integer("u8"), 200);
  EXPECT_EQ(m.integer("i8"), -3);
  EXPECT_EQ(m.integer("u16"), 65535);
  EXPECT_EQ(m.integer("i16"), -300);
  EXPECT_EQ(m.integer("u32"), 4000000000);
  EXPECT_EQ(m.integer("i32"), -5);
  EXPECT_EQ(m.boolean("bool"), true);
  EXPECT_EQ(m.integer("u64"), int64_t{1} << 40);
  EXPECT_EQ(m.integer("i64"), -9);
  EXPECT_EQ(m.number("f64"), 0.25);
  EXPECT_EQ(*m.array<float>("floats"), (std::vector<float>{1.5f, 2.5f}));
  EXPECT_EQ(*m.array<double>("doubles"), (std::vector<double>{3.5}));
  const auto* nested = m.array<GgufValue>("nested");
  ASSERT_NE(nested, nullptr);
  EXPECT_EQ(std::get<std::vector<int64_t>>((*nested)[1].value), (std::vector<int64_t>{'a', 'b'}));
}

TEST(GgufTest, RefusesWhatIsNotGguf) {
  expect_error("GGML....", StatusCode::kDataLoss, "does not start with \"GGUF\"");
  expect_error("", StatusCode::kDataLoss, "truncated");
  GgufBuilder builder = small();
  builder.version = 1;
  expect_error(builder.build(), StatusCode::kUnsupported, "supported versions: 2 and 3");
  builder.version = 0x03000000;
  expect_error(builder.build(), StatusCode::kUnsupported, "big-endian");
}

TEST(GgufTest, EveryTruncationIsRefused) {
  const std::string whole = small().build();
  for (size_t size = 0; size < whole.size(); ++size) {
    Result<GgufFile> file = read(whole.substr(0, size));
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.status().code(), StatusCode::kDataLoss) << file.status().message();
  }
  EXPECT_TRUE(read(whole).ok());
}

TEST(GgufTest, HugeCountsFailBeforeAllocating) {
  const uint64_t huge = uint64_t{1} << 60;
  GgufBuilder builder = small();
  builder.num_tensors_delta = huge;
  expect_error(builder.build(), StatusCode::kDataLoss, "number of tensors is 115");
  builder = small();
  builder.num_values_delta = huge;
  expect_error(builder.build(), StatusCode::kDataLoss, "number of metadata values is 115");
  builder = small();
  builder.num_tensors_delta = 1000;  // within the limit, not within the file
  expect_error(builder.build(), StatusCode::kDataLoss, "bytes follow");
  auto e = [](auto value) { return GgufBuilder::encode(value); };
  for (uint32_t type : {0u, 8u, 9u, 12u}) {
    builder = small();
    builder.raw("list", 9, e(type) + e(huge));
    expect_error(builder.build(), StatusCode::kDataLoss, "array length is 115");
    builder = small();
    builder.raw("list", 9, e(type) + e(uint64_t{1000000}));
    expect_error(builder.build(), StatusCode::kDataLoss, "bytes follow");
  }
  builder = small();
  builder.raw("text", 8, e(huge));
  expect_error(builder.build(), StatusCode::kDataLoss, "string length is 115");
  builder = small();
  builder.values += e(huge);
  builder.num_values += 1;
  expect_error(builder.build(), StatusCode::kDataLoss, "metadata key length");
}

TEST(GgufTest, RefusesBadMetadata) {
  auto e = [](auto value) { return GgufBuilder::encode(value); };
  GgufBuilder builder = small();
  builder.u32("answer", 43);
  expect_error(builder.build(), StatusCode::kDataLoss, "metadata \"answer\" is listed twice");
  builder = small();
  builder.raw("odd", 13, "");
  expect_error(builder.build(), StatusCode::kDataLoss, "value type 13 does not exist");
  builder = small();
  builder.raw("odd", 9, e(uint32_t{77}) + e(uint64_t{0}));
  expect_error(builder.build(), StatusCode::kDataLoss, "element type 77 does not exist");
  std::string nested;
  for (int depth = 0; depth < 5; ++depth) nested += e(uint32_t{9}) + e(uint64_t{1});
  builder = small();
  builder.raw("deep", 9, nested + e(uint32_t{0}) + e(uint64_t{0}));
  expect_error(builder.build(), StatusCode::kDataLoss, "nested deeper than 4");
  for (uint32_t alignment : {0u, 4u, 33u, 1u << 30}) {
    builder = small();
    builder.u32("general.alignment", alignment);
    expect_error(builder.build(), StatusCode::kDataLoss, "it must be a power of two");
  }
}

TEST(GgufTest, HonoursTheAlignment) {
  GgufBuilder builder;
  builder.alignment = 128;
  builder.u32("general.alignment", 128).f32_tensor("x", {1}, {5}).f32_tensor("y", {1}, {6});
  Result<GgufFile> file = read(builder.build());
  ASSERT_TRUE(file.ok()) << file.status().message();
  float value;
  ASSERT_TRUE(file->checkpoint.read(*file->checkpoint.find("y"), 0, 4, &value).ok());
  EXPECT_EQ(value, 6.0f);
}

TEST(GgufTest, RefusesBadTensors) {
  GgufBuilder builder = small();
  builder.f32_tensor("x", {1}, {1});
  expect_error(builder.build(), StatusCode::kDataLoss, "tensor x is listed twice");
  builder = small();
  builder.tensors[1].offset = 0;
  expect_error(builder.build(), StatusCode::kDataLoss, "tensors y and x overlap");
  builder = small();
  builder.tensors[1].offset = 8;
  expect_error(builder.build(), StatusCode::kDataLoss, "not a multiple of the alignment 32");
  for (uint64_t offset : {uint64_t{1} << 40, uint64_t{1} << 61, ~uint64_t{31}}) {
    builder = small();
    builder.tensors[1].offset = offset;
    expect_error(builder.build(), StatusCode::kDataLoss, "tensor y");
  }
  builder = small();
  builder.tensors[0].dims = {1, 1, 1, 1, 1};
  expect_error(builder.build(), StatusCode::kDataLoss, "5 dimensions, the limit is 4");
  builder = small();
  builder.tensors[0].dims = {3, 0};
  expect_error(builder.build(), StatusCode::kDataLoss, "dimension of 0");
  builder = small();
  builder.tensors[0].dims = {uint64_t{1} << 40, uint64_t{1} << 40};
  expect_error(builder.build(), StatusCode::kDataLoss, "cannot have the shape");
  builder = small();
  builder.tensors[0].dims = {uint64_t{1} << 32};
  expect_error(builder.build(), StatusCode::kDataLoss, "truncated or damaged");
  builder = small();
  builder.tensor("q", {33}, GgufBuilder::kQ4_0, std::string(36, 'x'));
  expect_error(builder.build(), StatusCode::kDataLoss, "of type q4_0 cannot have the shape [33]");
}

TEST(GgufTest, UnknownTensorTypeListsTheSupportedOnes) {
  GgufBuilder builder = small();
  builder.tensors[0].type = 16;
  expect_error(builder.build(), StatusCode::kUnsupported, "tensor x has type IQ2_XXS");
  expect_error(builder.build(), StatusCode::kUnsupported, "supported types: F32, F16, BF16, Q4_0");
  builder.tensors[0].type = 4711;
  expect_error(builder.build(), StatusCode::kUnsupported, "type number 4711");
}

class SplitGgufTest : public ::testing::Test {
 protected:
  void write(int index, int count, int stated_index, int stated_count) {
    auto u16 = [](int value) { return GgufBuilder::encode(static_cast<uint16_t>(value)); };
    GgufBuilder builder;
    builder.raw("split.no", 2, u16(stated_index)).raw("split.count", 2, u16(stated_count));
    builder.raw("split.tensors.count", 5, GgufBuilder::encode(int32_t{2}));
    if (index == 0) builder.string("general.architecture", "llama");
    builder.f32_tensor(
        std::string("t").append(std::to_string(index)), {1}, {static_cast<float>(index)});
    char name[64];
    std::snprintf(name, sizeof(name), "m-%05d-of-%05d.gguf", index + 1, count);
    paths_.push_back(dir_.write(name, builder.build()));
  }
  TempDir dir_;
  std::vector<std::filesystem::path> paths_;
};

TEST_F(SplitGgufTest, OpensAllFilesGivenAny) {
  write(0, 2, 0, 2);
  write(1, 2, 1, 2);
  for (const auto& path : paths_) {
    Result<GgufFile> file = open_gguf(path);
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ(file->checkpoint.tensors().size(), 2u);
    float value;
    ASSERT_TRUE(file->checkpoint.read(*file->checkpoint.find("t1"), 0, 4, &value).ok());
    EXPECT_EQ(value, 1.0f);
  }
}

TEST_F(SplitGgufTest, RefusesMissingOrForeignFiles) {
  write(0, 2, 0, 2);
  Result<GgufFile> file = open_gguf(paths_[0]);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), StatusCode::kNotFound);
  EXPECT_NE(file.status().message().find("must lie together"), std::string::npos);
  write(1, 2, 1, 3);
  file = open_gguf(paths_[0]);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.status().message().find("split.no and split.count are not 1 and 2"),
            std::string::npos)
      << file.status().message();
}

TEST_F(SplitGgufTest, RefusesOneFileUnderAnotherName) {
  write(0, 2, 0, 2);
  std::filesystem::rename(paths_[0], dir_.path() / "renamed.gguf");
  Result<GgufFile> file = open_gguf(dir_.path() / "renamed.gguf");
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.status().message().find("one file of a split model"), std::string::npos);
}

}  // namespace
}  // namespace quire
