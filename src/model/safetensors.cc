#include "model/safetensors.h"

#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/json.h"
#include "base/mutants.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

constexpr JsonLimits kHeaderLimits = {.max_depth = 8, .max_values = 16 << 20};

struct TypeName {
  const char* name;
  DType dtype;
};
constexpr TypeName kTypes[] = {
    {"F32", DType::kF32},
    {"F16", DType::kF16},
    {"BF16", DType::kBF16},
    {"I8", DType::kI8},
    {"U8", DType::kU8},
    {"BOOL", DType::kU8},
    {"I32", DType::kI32},
    {"I64", DType::kI64},
};

Result<DType> type_by_name(const std::string& tensor, const std::string* name) {
  if (name == nullptr) return data_loss("tensor " + tensor + " has no \"dtype\"");
  std::string list;
  for (const TypeName& type : kTypes) {
    if (*name == type.name) return type.dtype;
    list += std::string(list.empty() ? "" : ", ") + type.name;
  }
  return unsupported("tensor " + tensor + " has type " + *name + "; supported types: " + list +
                     ". Use a checkpoint in F32, F16 or BF16");
}

Status bad_entry(const std::string& name, const char* what) {
  return data_loss("tensor " + name + ": " + what + "; the file is damaged, fetch it again");
}

// `entry` = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}.
Result<TensorInfo> parse_entry(const std::string& name,
                               const JsonValue& entry,
                               int file,
                               int64_t data_start) {
  TensorInfo info;
  info.name = name;
  info.file = file;
  const JsonValue* dtype = entry.get("dtype");
  QUIRE_ASSIGN_OR_RETURN(info.dtype, type_by_name(name, dtype ? dtype->string() : nullptr));
  const JsonValue* shape = entry.get("shape");
  if (shape == nullptr || shape->array() == nullptr) return bad_entry(name, "no \"shape\"");
  if (shape->array()->size() > kSafetensorsMaxDims) {
    return bad_entry(name, "more than 8 dimensions");
  }
  for (const JsonValue& dim : *shape->array()) {
    std::optional<int64_t> value = dim.integer();
    if (!value || *value < 0) return bad_entry(name, "a dimension is not a natural number");
    info.shape.push_back(*value);
  }
  const JsonValue* offsets = entry.get("data_offsets");
  if (offsets == nullptr || offsets->array() == nullptr || offsets->array()->size() != 2) {
    return bad_entry(name, "no \"data_offsets\" of two numbers");
  }
  std::optional<int64_t> begin = (*offsets->array())[0].integer();
  std::optional<int64_t> end = (*offsets->array())[1].integer();
  if (!begin || !end || *begin < 0 || *end < *begin || *end > INT64_MAX / 2) {
    return bad_entry(name, "\"data_offsets\" are not an increasing pair of natural numbers");
  }
  info.offset = data_start + *begin;
  info.bytes = *end - *begin;
  const int64_t want = tensor_bytes(info.dtype, info.shape);
  if (want < 0) return bad_entry(name, "its dimensions multiply to more bytes than a file has");
  if (want != info.bytes && !mutant("model_safetensors_trusts_sizes")) {
    return data_loss("tensor " + name + " of type " + *dtype->string() + " and shape " +
                     shape_to_string(info.shape) + " takes " + std::to_string(want) +
                     " bytes, but its data_offsets span " + std::to_string(info.bytes) +
                     "; the file is damaged, fetch it again");
  }
  return info;
}

Status read_header(InputFile input, Checkpoint* checkpoint) {
  const int index = checkpoint->add_file(std::move(input));
  const InputFile& file = checkpoint->files()[static_cast<size_t>(index)];
  uint64_t length = 0;
  if (file.size() < 8) {
    return data_loss("only " + std::to_string(file.size()) +
                     " bytes; the file is truncated, fetch it again");
  }
  QUIRE_RETURN_IF_ERROR(file.read(0, 8, &length));
  if (length > static_cast<uint64_t>(kSafetensorsMaxHeaderBytes)) {
    return data_loss("a header of " + std::to_string(length) + " bytes; the limit is " +
                     std::to_string(kSafetensorsMaxHeaderBytes) +
                     ". This is not a safetensors file, or it is damaged");
  }
  if (static_cast<int64_t>(length) > file.size() - 8) {
    return data_loss("a header of " + std::to_string(length) + " bytes in a file of " +
                     std::to_string(file.size()) + "; the file is truncated, fetch it again");
  }
  std::string text(static_cast<size_t>(length), '\0');
  QUIRE_RETURN_IF_ERROR(file.read(8, static_cast<int64_t>(length), text.data()));
  QUIRE_ASSIGN_OR_RETURN(JsonValue header, parse_json(text, kHeaderLimits));
  text = std::string();
  if (header.object() == nullptr) return data_loss("the header is not a JSON object");
  for (const auto& [name, entry] : *header.object()) {
    if (name == "__metadata__") continue;
    QUIRE_ASSIGN_OR_RETURN(TensorInfo info,
                           parse_entry(name, entry, index, 8 + static_cast<int64_t>(length)));
    QUIRE_RETURN_IF_ERROR(checkpoint->add_tensor(std::move(info)));
  }
  return Status();
}

using WeightMap = std::map<std::string, std::string>;  // tensor -> the file that holds it

// The "weight_map" of an index; every file is a plain name.
Result<WeightMap> read_weight_map(const fs::path& index_path) {
  QUIRE_ASSIGN_OR_RETURN(std::string text, read_text_file(index_path, kSafetensorsMaxIndexBytes));
  Result<JsonValue> index = parse_json(text, kHeaderLimits);
  if (!index.ok()) return index.status().with_context(index_path.string());
  const JsonValue* map = index->get("weight_map");
  if (map == nullptr || map->object() == nullptr) {
    return data_loss(index_path.string() + " has no object \"weight_map\"");
  }
  WeightMap shard_of;
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : *map->object()) {
    const std::string* name = shard.string();
    if (name == nullptr || name->empty() || name->find('/') != std::string::npos ||
        name->find('\0') != std::string::npos || *name == "." || *name == "..") {
      return data_loss(index_path.string() + ": the file of tensor " + tensor +
                       " is not a plain file name");
    }
    shards.insert(*name);
    if (shards.size() > kSafetensorsMaxShards) {
      return data_loss(index_path.string() + " lists more than " +
                       std::to_string(kSafetensorsMaxShards) + " files");
    }
    shard_of[tensor] = *name;
  }
  return shard_of;
}

// Every tensor must be where the index says: a file of another download would go unnoticed.
Status check_weight_map(const WeightMap& shard_of, const Checkpoint& checkpoint) {
  for (const auto& [tensor, shard] : shard_of) {
    const TensorInfo* info = checkpoint.find(tensor);
    const std::string found =
        info == nullptr
            ? "no file"
            : fs::path(checkpoint.files()[static_cast<size_t>(info->file)].name()).filename();
    if (found == shard) continue;
    return data_loss("model.safetensors.index.json says that " + shard + " holds tensor " + tensor +
                     ", but " + found +
                     " does; the files are of different checkpoints, fetch all "
                     "of them again");
  }
  return Status();
}

}  // namespace

static_assert(std::endian::native == std::endian::little, "checkpoints are read as little endian");

Status read_safetensors(InputFile file, Checkpoint* checkpoint) {
  const std::string name = file.name();
  return read_header(std::move(file), checkpoint).with_context(name);
}

Result<Checkpoint> open_safetensors_folder(const fs::path& folder) {
  Checkpoint checkpoint;
  WeightMap shard_of;
  std::set<std::string> shards = {"model.safetensors"};
  const fs::path index_path = folder / "model.safetensors.index.json";
  std::error_code ignored;
  if (fs::exists(index_path, ignored)) {
    QUIRE_ASSIGN_OR_RETURN(shard_of, read_weight_map(index_path));
    shards.clear();
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  } else if (!fs::exists(folder / "model.safetensors", ignored)) {
    return not_found(folder.string() +
                     " holds neither model.safetensors nor model.safetensors.index.json; other "
                     "weight files (.bin, .pt) are not read: convert them to safetensors");
  }
  for (const std::string& shard : shards) {
    std::error_code error;
    if (!fs::exists(folder / shard, error)) {
      return not_found((folder / shard).string() +
                       " is missing: the download of the model did not finish");
    }
    QUIRE_ASSIGN_OR_RETURN(InputFile file, InputFile::open(folder / shard));
    QUIRE_RETURN_IF_ERROR(read_safetensors(std::move(file), &checkpoint));
  }
  QUIRE_RETURN_IF_ERROR(checkpoint.check_no_overlap());
  QUIRE_RETURN_IF_ERROR(check_weight_map(shard_of, checkpoint));
  return checkpoint;
}

}  // namespace quire
