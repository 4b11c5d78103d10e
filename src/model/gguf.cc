#include "model/gguf.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/mutants.h"
#include "model/gguf_reader.h"

namespace quire {
namespace {

constexpr char kMagic[4] = {'G', 'G', 'U', 'F'};
constexpr int64_t kDefaultAlignment = 32;

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kNumValueTypes
};
// Smallest encoding of a value of each type.
constexpr int64_t kMinBytes[kNumValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

struct TensorType {
  uint32_t id;
  const char* name;
  int dtype;  // DType, or -1: not supported
};
constexpr TensorType supported(uint32_t id, const char* name, DType type) {
  return {id, name, static_cast<int>(type)};
}
constexpr TensorType kTensorTypes[] = {
    supported(0, "F32", DType::kF32),
    supported(1, "F16", DType::kF16),
    supported(30, "BF16", DType::kBF16),
    supported(2, "Q4_0", DType::kQ4_0),
    supported(3, "Q4_1", DType::kQ4_1),
    supported(6, "Q5_0", DType::kQ5_0),
    supported(7, "Q5_1", DType::kQ5_1),
    supported(8, "Q8_0", DType::kQ8_0),
    supported(12, "Q4_K", DType::kQ4_K),
    supported(13, "Q5_K", DType::kQ5_K),
    supported(14, "Q6_K", DType::kQ6_K),
    supported(24, "I8", DType::kI8),
    supported(26, "I32", DType::kI32),
    supported(27, "I64", DType::kI64),
    {9, "Q8_1", -1},
    {10, "Q2_K", -1},
    {11, "Q3_K", -1},
    {15, "Q8_K", -1},
    {16, "IQ2_XXS", -1},
    {17, "IQ2_XS", -1},
    {18, "IQ3_XXS", -1},
    {19, "IQ1_S", -1},
    {20, "IQ4_NL", -1},
    {21, "IQ3_S", -1},
    {22, "IQ2_S", -1},
    {23, "IQ4_XS", -1},
    {25, "I16", -1},
    {28, "F64", -1},
    {29, "IQ1_M", -1},
    {34, "TQ1_0", -1},
    {35, "TQ2_0", -1},
    {39, "MXFP4", -1},
};

Result<DType> tensor_type(const std::string& tensor, uint32_t id) {
  std::string name = "number " + std::to_string(id), list;
  for (const TensorType& type : kTensorTypes) {
    if (type.id == id && type.dtype >= 0) return static_cast<DType>(type.dtype);
    if (type.id == id) name = type.name;
    if (type.dtype >= 0 && dtype_info(static_cast<DType>(type.dtype)).is_weight) {
      list += std::string(list.empty() ? "" : ", ") + type.name;
    }
  }
  return unsupported("tensor " + tensor + " has type " + name + "; supported types: " + list +
                     ". Use a file with another quantisation of the model");
}

template <class T, class Out>
Status read_numbers(GgufReader& reader, int64_t count, std::vector<Out>* out) {
  out->reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    T value;
    QUIRE_RETURN_IF_ERROR(reader.number("an array element", &value));
    out->push_back(static_cast<Out>(value));
  }
  return Status();
}

template <class T>
Status read_scalar(GgufReader& reader, GgufValue* out) {
  T value;
  QUIRE_RETURN_IF_ERROR(reader.number("a metadata value", &value));
  if constexpr (std::is_floating_point_v<T>) {
    out->value = static_cast<double>(value);
  } else {
    out->value = static_cast<int64_t>(value);
  }
  return Status();
}

Status read_value(GgufReader& reader, uint32_t type, int depth, GgufValue* out);

Status read_array(GgufReader& reader, int depth, GgufValue* out) {
  uint32_t type = 0;
  QUIRE_RETURN_IF_ERROR(reader.number("an array's type", &type));
  if (type >= kNumValueTypes) {
    return data_loss("array element type " + std::to_string(type) + " does not exist");
  }
  int64_t count = 0;
  QUIRE_RETURN_IF_ERROR(
      reader.count("array length", kGgufMaxArrayElements, kMinBytes[type], &count));
  auto integers = [&]<class T>(T) {
    return read_numbers<T>(reader, count, &out->value.emplace<std::vector<int64_t>>());
  };
  switch (type) {
    case kU8:
    case kBool:
      return integers(uint8_t{});
    case kI8:
      return integers(int8_t{});
    case kU16:
      return integers(uint16_t{});
    case kI16:
      return integers(int16_t{});
    case kU32:
      return integers(uint32_t{});
    case kI32:
      return integers(int32_t{});
    case kU64:
      return integers(uint64_t{});
    case kI64:
      return integers(int64_t{});
    case kF32:
      return read_numbers<float>(reader, count, &out->value.emplace<std::vector<float>>());
    case kF64:
      return read_numbers<double>(reader, count, &out->value.emplace<std::vector<double>>());
    case kString: {
      auto& strings = out->value.emplace<std::vector<std::string>>();
      for (int64_t i = 0; i < count; ++i) {
        QUIRE_RETURN_IF_ERROR(
            reader.string("string length", kGgufMaxStringBytes, &strings.emplace_back()));
      }
      return Status();
    }
    default: {  // arrays of arrays
      if (depth + 1 >= kGgufMaxArrayDepth) {
        return data_loss("metadata arrays nested deeper than " +
                         std::to_string(kGgufMaxArrayDepth) + " levels");
      }
      auto& arrays = out->value.emplace<GgufValue::Array>();
      for (int64_t i = 0; i < count; ++i) {
        QUIRE_RETURN_IF_ERROR(read_array(reader, depth + 1, &arrays.emplace_back()));
      }
      return Status();
    }
  }
}

Status read_value(GgufReader& reader, uint32_t type, int depth, GgufValue* out) {
  switch (type) {
    case kU8:
      return read_scalar<uint8_t>(reader, out);
    case kI8:
      return read_scalar<int8_t>(reader, out);
    case kU16:
      return read_scalar<uint16_t>(reader, out);
    case kI16:
      return read_scalar<int16_t>(reader, out);
    case kU32:
      return read_scalar<uint32_t>(reader, out);
    case kI32:
      return read_scalar<int32_t>(reader, out);
    case kU64:
      return read_scalar<uint64_t>(reader, out);
    case kI64:
      return read_scalar<int64_t>(reader, out);
    case kF32:
      return read_scalar<float>(reader, out);
    case kF64:
      return read_scalar<double>(reader, out);
    case kBool: {
      uint8_t value = 0;
      QUIRE_RETURN_IF_ERROR(reader.number("a metadata value", &value));
      out->value = value != 0;
      return Status();
    }
    case kString:
      return reader.string(
          "string length", kGgufMaxStringBytes, &out->value.emplace<std::string>());
    case kArray:
      return read_array(reader, depth, out);
    default:
      return data_loss("metadata value type " + std::to_string(type) + " does not exist");
  }
}

struct Header {
  int64_t num_tensors = 0, num_values = 0;
};

Result<Header> read_preamble(GgufReader& reader) {
  std::array<char, 4> magic;
  uint32_t version = 0;
  QUIRE_RETURN_IF_ERROR(reader.bytes("the magic", 4, magic.data()));
  if (std::memcmp(magic.data(), kMagic, 4) != 0) {
    return data_loss("not a GGUF file (it does not start with \"GGUF\")");
  }
  QUIRE_RETURN_IF_ERROR(reader.number("the version", &version));
  if ((version & 0xffff) == 0 && version != 0) {
    return unsupported("a big-endian GGUF file; only little-endian files are supported");
  }
  if (version != 2 && version != 3) {
    return unsupported("GGUF version " + std::to_string(version) +
                       "; supported versions: 2 and 3. Convert the model again");
  }
  Header header;
  // A tensor takes at least 8 (name) + 4 (dims) + 4 (type) + 8 (offset) bytes.
  QUIRE_RETURN_IF_ERROR(
      reader.count("number of tensors", kGgufMaxTensors, 24, &header.num_tensors));
  QUIRE_RETURN_IF_ERROR(
      reader.count("number of metadata values", kGgufMaxKeyValues, 13, &header.num_values));
  return header;
}

Status read_metadata(GgufReader& reader, int64_t num_values, GgufMetadata* out) {
  for (int64_t i = 0; i < num_values; ++i) {
    std::string key;
    uint32_t type = 0;
    QUIRE_RETURN_IF_ERROR(reader.string("metadata key length", kGgufMaxNameBytes, &key));
    QUIRE_RETURN_IF_ERROR(reader.number("a metadata type", &type));
    GgufValue value;
    if (Status status = read_value(reader, type, 0, &value); !status.ok()) {
      return status.with_context("metadata \"" + key + "\"");
    }
    if (!out->values.emplace(key, std::move(value)).second) {
      return data_loss("metadata \"" + key + "\" is listed twice");
    }
  }
  return Status();
}

// One entry of the tensor list; its offset still counts from the start of the data.
Result<TensorInfo> read_tensor_info(GgufReader& reader, int file, int64_t alignment) {
  TensorInfo info;
  uint32_t num_dims = 0, type = 0;
  uint64_t offset = 0;
  QUIRE_RETURN_IF_ERROR(reader.string("tensor name length", kGgufMaxNameBytes, &info.name));
  QUIRE_RETURN_IF_ERROR(reader.number("a tensor's number of dimensions", &num_dims));
  if (num_dims > static_cast<uint32_t>(kGgufMaxDims)) {
    return data_loss("tensor " + info.name + " has " + std::to_string(num_dims) +
                     " dimensions, the limit is " + std::to_string(kGgufMaxDims));
  }
  info.shape.resize(num_dims);
  for (uint32_t d = 0; d < num_dims; ++d) {  // innermost first in the file
    uint64_t dim = 0;
    QUIRE_RETURN_IF_ERROR(reader.number("a tensor's dimension", &dim));
    if (dim == 0 || dim > static_cast<uint64_t>(INT64_MAX)) {
      return data_loss("tensor " + info.name + " has a dimension of " + std::to_string(dim));
    }
    info.shape[num_dims - 1 - d] = static_cast<int64_t>(dim);
  }
  QUIRE_RETURN_IF_ERROR(reader.number("a tensor's type", &type));
  QUIRE_RETURN_IF_ERROR(reader.number("a tensor's offset", &offset));
  QUIRE_ASSIGN_OR_RETURN(info.dtype, tensor_type(info.name, type));
  info.bytes = tensor_bytes(info.dtype, info.shape);
  if (info.bytes < 0) {
    return data_loss("tensor " + info.name + " of type " + dtype_info(info.dtype).name +
                     " cannot have the shape " + shape_to_string(info.shape));
  }
  if (offset > static_cast<uint64_t>(INT64_MAX) / 2 ||
      (offset % static_cast<uint64_t>(alignment) != 0 && !mutant("model_gguf_trusts_offsets"))) {
    return data_loss("tensor " + info.name + " is at offset " + std::to_string(offset) +
                     ", which is not a multiple of the alignment " + std::to_string(alignment));
  }
  info.offset = static_cast<int64_t>(offset);
  info.file = file;
  return info;
}

// Adds one file to `checkpoint`; its metadata goes to `metadata`.
Status read_file(InputFile input, GgufMetadata* metadata, Checkpoint* checkpoint) {
  const int index = checkpoint->add_file(std::move(input));
  const InputFile& file = checkpoint->files()[static_cast<size_t>(index)];
  GgufReader reader(file, kGgufMaxHeaderBytes);
  QUIRE_ASSIGN_OR_RETURN(Header header, read_preamble(reader));
  QUIRE_RETURN_IF_ERROR(read_metadata(reader, header.num_values, metadata));
  const int64_t alignment = metadata->integer("general.alignment").value_or(kDefaultAlignment);
  if (alignment < 8 || alignment > kGgufMaxAlignment || (alignment & (alignment - 1)) != 0) {
    return data_loss("general.alignment is " + std::to_string(alignment) +
                     "; it must be a power of two from 8 to " + std::to_string(kGgufMaxAlignment));
  }
  std::vector<TensorInfo> tensors;
  for (int64_t i = 0; i < header.num_tensors; ++i) {
    QUIRE_ASSIGN_OR_RETURN(TensorInfo info, read_tensor_info(reader, index, alignment));
    tensors.push_back(std::move(info));
  }
  const int64_t data_start = (reader.position() + alignment - 1) / alignment * alignment;
  for (TensorInfo& info : tensors) {
    info.offset += data_start;
    QUIRE_RETURN_IF_ERROR(checkpoint->add_tensor(std::move(info)));
  }
  return Status();
}

// "<stem>-00002-of-00003.gguf" -> stem and count.
struct SplitName {
  std::string stem;
  int count = 0;
};
std::optional<SplitName> parse_split_name(const std::string& name) {
  constexpr size_t kTailLength = sizeof("-00001-of-00002.gguf") - 1;
  if (name.size() <= kTailLength) return std::nullopt;
  int index = 0, count = 0, consumed = 0;
  const char* tail = name.c_str() + name.size() - kTailLength;
  if (std::sscanf(tail, "-%5d-of-%5d.gguf%n", &index, &count, &consumed) != 2 ||
      consumed != static_cast<int>(kTailLength) || index < 1 || index > count) {
    return std::nullopt;
  }
  return SplitName{name.substr(0, name.size() - kTailLength), count};
}

Status read_split(const std::filesystem::path& path, const SplitName& split, GgufFile* out) {
  if (split.count > kGgufMaxSplits) {
    return data_loss("split into " + std::to_string(split.count) + " files; the limit is " +
                     std::to_string(kGgufMaxSplits));
  }
  for (int i = 0; i < split.count; ++i) {
    char tail[64];
    std::snprintf(tail, sizeof(tail), "-%05d-of-%05d.gguf", i + 1, split.count);
    std::filesystem::path part = path.parent_path() / (split.stem + tail);
    Result<InputFile> file = InputFile::open(part);
    if (!file.ok()) {
      return file.status().with_context("the model is split into " + std::to_string(split.count) +
                                        " files that must lie together");
    }
    GgufMetadata part_metadata;
    GgufMetadata* metadata = i == 0 ? &out->metadata : &part_metadata;
    Status status = read_file(std::move(file).value(), metadata, &out->checkpoint);
    if (!status.ok()) return status.with_context(part.string());
    if (metadata->integer("split.no").value_or(-1) != i ||
        metadata->integer("split.count").value_or(-1) != split.count) {
      return data_loss(part.string() + ": its split.no and split.count are not " +
                       std::to_string(i) + " and " + std::to_string(split.count) +
                       ": the file belongs to another model or was renamed");
    }
  }
  const int64_t got = static_cast<int64_t>(out->checkpoint.tensors().size());
  const int64_t want = out->metadata.integer("split.tensors.count").value_or(got);
  if (got != want) {
    return data_loss("the split files hold " + std::to_string(got) +
                     " tensors, split.tensors.count says " + std::to_string(want));
  }
  return out->checkpoint.check_no_overlap();
}

}  // namespace

Result<GgufFile> read_gguf(InputFile file) {
  const std::string name = file.name();
  GgufFile out;
  Status status = read_file(std::move(file), &out.metadata, &out.checkpoint);
  if (status.ok() && out.metadata.integer("split.count").value_or(1) > 1) {
    status = invalid_argument(
        "one file of a split model; name the files <model>-00001-of-0000N."
        "gguf and give the first");
  }
  if (status.ok()) status = out.checkpoint.check_no_overlap();
  if (!status.ok()) return status.with_context(name);
  return out;
}

Result<GgufFile> open_gguf(const std::filesystem::path& path) {
  std::optional<SplitName> split = parse_split_name(path.filename().string());
  if (split && split->count > 1) {
    GgufFile out;
    QUIRE_RETURN_IF_ERROR(read_split(path, *split, &out));
    return out;
  }
  QUIRE_ASSIGN_OR_RETURN(InputFile file, InputFile::open(path));
  return read_gguf(std::move(file));
}

}  // namespace quire
