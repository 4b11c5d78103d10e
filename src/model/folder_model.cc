// A Hugging Face folder: config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json, chat_template.jinja, README.md (licence), safetensors.
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "model/config_reader.h"
#include "model/model_files.h"
#include "model/safetensors.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int64_t kMaxTokenizerBytes = 256 << 20;
constexpr int64_t kMaxReadmeBytes = 4 << 20;

// A file that may be absent.
Result<std::optional<std::string>> read_optional(const fs::path& path, int64_t max_bytes) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::optional<std::string>();
  QUIRE_ASSIGN_OR_RETURN(std::string text, read_text_file(path, max_bytes));
  return std::optional<std::string>(std::move(text));
}

// Absent: JSON null.
Result<JsonValue> read_optional_json(const fs::path& path) {
  QUIRE_ASSIGN_OR_RETURN(std::optional<std::string> text, read_optional(path, kMaxConfigBytes));
  if (!text) return JsonValue();
  Result<JsonValue> json = parse_json(*text);
  if (!json.ok()) return json.status().with_context(path.string());
  return json;
}

Status read_config(const fs::path& folder, ModelFiles& files) {
  const fs::path path = folder / "config.json";
  QUIRE_ASSIGN_OR_RETURN(std::string text, read_text_file(path, kMaxConfigBytes));
  Result<JsonValue> json = parse_json(text);
  if (!json.ok()) return json.status().with_context(path.string());
  Result<ParsedConfig> parsed = config_from_json(*json);
  if (!parsed.ok()) return parsed.status().with_context(path.string());
  files.architecture = parsed->architecture;
  files.info.config = std::move(parsed->config);

  const fs::path generation_path = folder / "generation_config.json";
  QUIRE_ASSIGN_OR_RETURN(JsonValue generation, read_optional_json(generation_path));
  if (generation.is_null()) return Status();
  Result<GenerationDefaults> defaults =
      generation_from_json(generation, &files.info.config.eos_token_ids);
  if (!defaults.ok()) return defaults.status().with_context(generation_path.string());
  files.info.generation = *defaults;
  return validate_config(files.info.config).with_context(generation_path.string());
}

// "bos_token": "<s>", or an object whose "content" it is.
std::optional<std::string> special_token(const JsonValue& json, const char* key) {
  const JsonValue* value = json.get(key);
  if (value != nullptr && value->object() != nullptr) value = value->get("content");
  if (value == nullptr || value->string() == nullptr) return std::nullopt;
  return *value->string();
}

// "chat_template" is a text, or a list of {"name", "template"} of which "default" counts.
std::optional<std::string> chat_template(const JsonValue& json) {
  const JsonValue* value = json.get("chat_template");
  if (value == nullptr) return std::nullopt;
  if (value->string() != nullptr) return *value->string();
  if (value->array() == nullptr) return std::nullopt;
  for (const JsonValue& item : *value->array()) {
    const JsonValue *name = item.get("name"), *text = item.get("template");
    if (name != nullptr && name->string() != nullptr && *name->string() == "default" &&
        text != nullptr && text->string() != nullptr) {
      return *text->string();
    }
  }
  return std::nullopt;
}

Status read_tokenizer(const fs::path& folder, ModelInfo& info) {
  QUIRE_ASSIGN_OR_RETURN(std::optional<std::string> tokenizer,
                         read_optional(folder / "tokenizer.json", kMaxTokenizerBytes));
  if (!tokenizer) {
    return not_found(folder.string() +
                     " lacks tokenizer.json (the format of Hugging Face tokenizers); save the "
                     "model's fast tokenizer there");
  }
  info.tokenizer = std::move(*tokenizer);
  QUIRE_ASSIGN_OR_RETURN(JsonValue json, read_optional_json(folder / "tokenizer_config.json"));
  info.special_tokens = {special_token(json, "bos_token"),
                         special_token(json, "eos_token"),
                         special_token(json, "pad_token"),
                         special_token(json, "unk_token")};
  QUIRE_ASSIGN_OR_RETURN(info.chat_template,
                         read_optional(folder / "chat_template.jinja", kMaxConfigBytes));
  if (!info.chat_template) info.chat_template = chat_template(json);
  return Status();
}

// The "license:" line of the front matter of README.md.
std::string licence_of_readme(const std::string& readme) {
  if (!readme.starts_with("---")) return "";
  const size_t end = readme.find("\n---", 3);
  constexpr std::string_view kKey = "\nlicense:";
  size_t begin = readme.find(kKey);
  if (begin == std::string::npos || begin > end) return "";
  begin = readme.find_first_not_of(" \t", begin + kKey.size());
  if (begin == std::string::npos) return "";
  const size_t line_end = readme.find_first_of("\r\n", begin);
  return readme.substr(begin, line_end == std::string::npos ? line_end : line_end - begin);
}

// The folder's name; in a Hugging Face cache, models--ORG--NAME/snapshots/COMMIT, it is ORG/NAME.
std::string name_of_folder(const fs::path& folder) {
  std::error_code error;
  const fs::path absolute = fs::absolute(folder, error).lexically_normal();
  const fs::path path = absolute.has_filename() ? absolute : absolute.parent_path();
  constexpr std::string_view kPrefix = "models--";
  const std::string repository = path.parent_path().parent_path().filename().string();
  const size_t separator = repository.find("--", kPrefix.size());
  if (path.parent_path().filename() == "snapshots" && repository.starts_with(kPrefix) &&
      separator != std::string::npos) {
    return repository.substr(kPrefix.size(), separator - kPrefix.size()) + "/" +
           repository.substr(separator + 2);
  }
  return path.filename().string();
}

}  // namespace

Result<ModelFiles> open_folder_model(const fs::path& folder) {
  ModelFiles files;
  files.info.path = folder;
  files.info.format = CheckpointFormat::kSafetensors;
  QUIRE_RETURN_IF_ERROR(read_config(folder, files));
  QUIRE_RETURN_IF_ERROR(read_tokenizer(folder, files.info));
  Result<std::optional<std::string>> readme = read_optional(folder / "README.md", kMaxReadmeBytes);
  if (readme.ok() && *readme) files.info.config.licence = licence_of_readme(**readme);
  ModelConfig& config = files.info.config;
  if (config.name.empty()) config.name = name_of_folder(folder);
  QUIRE_ASSIGN_OR_RETURN(files.checkpoint, open_safetensors_folder(folder));
  return files;
}

}  // namespace quire
