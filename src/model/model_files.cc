#include "model/model_files.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "model/config_reader.h"
#include "model/gguf.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

// Groups in the order of the architecture's table, types in the order of DType.
void summarize_tensors(ModelFiles& files) {
  ModelInfo& info = files.info;
  for (const TensorInfo& tensor : files.checkpoint.tensors()) {
    const char* group = tensor_group(files.architecture->tensor_names, info.format, tensor.name);
    auto it = std::find_if(info.tensors.begin(), info.tensors.end(), [&](const TensorGroup& have) {
      return have.group == group && have.type == tensor.dtype;
    });
    if (it == info.tensors.end()) {
      it = info.tensors.insert(it, TensorGroup{group, tensor.dtype});
    }
    int64_t elements = 1;
    for (int64_t dim : tensor.shape) elements *= dim;
    it->num_tensors += 1;
    it->num_elements += elements;
    it->bytes += tensor.bytes;
    info.num_parameters += elements;
    info.checkpoint_bytes += tensor.bytes;
  }
  auto rank = [&](const std::string& group) {
    size_t i = 0;
    for (const TensorName& name : files.architecture->tensor_names) {
      if (group == name.group) return i;
      ++i;
    }
    return i;
  };
  std::sort(
      info.tensors.begin(), info.tensors.end(), [&](const TensorGroup& a, const TensorGroup& b) {
        return std::pair(rank(a.group), a.type) < std::pair(rank(b.group), b.type);
      });
}

std::optional<std::string> token_text(const GgufTokenizerSpec& spec, std::optional<int32_t> id) {
  if (!id) return std::nullopt;
  return spec.tokens[static_cast<size_t>(*id)];
}

}  // namespace

Result<ModelFiles> open_gguf_model(const fs::path& path) {
  QUIRE_ASSIGN_OR_RETURN(GgufFile file, open_gguf(path));
  Result<ParsedConfig> parsed = config_from_gguf(file);
  if (!parsed.ok()) return parsed.status().with_context(path.string());
  ModelFiles files;
  ModelInfo& info = files.info;
  info.path = path;
  info.format = CheckpointFormat::kGguf;
  info.config = parsed->config;
  files.architecture = parsed->architecture;
  Result<GgufTokenizerSpec> spec = tokenizer_from_gguf(file.metadata, info.config.vocab_size);
  if (!spec.ok()) return spec.status().with_context(path.string());
  info.special_tokens = {token_text(*spec, spec->bos),
                         token_text(*spec, spec->eos),
                         token_text(*spec, spec->pad),
                         token_text(*spec, spec->unk)};
  info.tokenizer = std::move(spec).value();
  if (const std::string* text = file.metadata.string("tokenizer.chat_template")) {
    info.chat_template = *text;
  }
  files.checkpoint = std::move(file.checkpoint);
  summarize_tensors(files);
  return files;
}

Result<ModelFiles> open_model_files(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return not_found(path.string() + " does not exist");
  if (!fs::is_directory(path, error)) return open_gguf_model(path);
  QUIRE_ASSIGN_OR_RETURN(ModelFiles files, open_folder_model(path));
  summarize_tensors(files);
  return files;
}

}  // namespace quire
