#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

#include "model/input_file.h"
#include "model/loader.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

fs::path environment_path(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? fs::path() : fs::path(value);
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

// The folder of the only snapshot: caches that were copied or linked together may lack refs/main.
Result<fs::path> only_snapshot(const fs::path& repository) {
  std::error_code error;
  std::vector<fs::path> snapshots;
  for (fs::directory_iterator it(repository / "snapshots", error), end; !error && it != end;
       it.increment(error)) {
    snapshots.push_back(it->path());
  }
  if (!error && snapshots.size() == 1) return snapshots.front();
  return not_found((repository / "refs" / "main").string() + " is missing and " +
                   (repository / "snapshots").string() + " holds " +
                   std::to_string(snapshots.size()) +
                   " snapshots: give the folder of one of them as MODEL, or download it again");
}

// models--org--name/snapshots/<the commit that refs/main names>.
Result<fs::path> snapshot(const fs::path& repository) {
  const fs::path main = repository / "refs" / "main";
  if (!is_there(main)) return only_snapshot(repository);
  QUIRE_ASSIGN_OR_RETURN(std::string ref, read_text_file(main, 4096));
  ref = trimmed(ref);
  if (!is_plain_name(ref)) return data_loss(main.string() + " does not name a snapshot");
  fs::path folder = repository / "snapshots" / ref;
  if (!is_there(folder)) {
    return not_found(folder.string() + " is missing: the download of the model did not finish");
  }
  return folder;
}

}  // namespace

ModelSearch ModelSearch::from_environment() {
  const fs::path home = environment_path("HOME");
  fs::path cache = environment_path("XDG_CACHE_HOME");
  if (cache.empty()) cache = home / ".cache";
  ModelSearch search;
  search.quire_models = cache / "quire" / "models";
  search.hugging_face = environment_path("HF_HUB_CACHE");
  if (search.hugging_face.empty()) {
    fs::path hf_home = environment_path("HF_HOME");
    if (hf_home.empty()) hf_home = cache / "huggingface";
    search.hugging_face = hf_home / "hub";
  }
  return search;
}

Result<fs::path> resolve_model(std::string_view name_view, const ModelSearch& search) {
  const std::string name(name_view);
  if (name.empty()) return invalid_argument("the name of the model is empty");
  std::vector<fs::path> tried;
  auto found = [&](const fs::path& path) {
    tried.push_back(path);
    return is_there(path);
  };
  if (found(name)) return fs::path(name);
  if (is_plain_name(name)) {
    if (found(search.quire_models / (name + ".gguf"))) return tried.back();
    if (found(search.quire_models / name)) return tried.back();
  }
  const size_t slash = name.find('/');
  if (slash != std::string::npos) {
    const std::string organisation = name.substr(0, slash), model = name.substr(slash + 1);
    if (is_plain_name(organisation) && is_plain_name(model) &&
        found(search.hugging_face / ("models--" + organisation + "--" + model))) {
      return snapshot(tried.back());
    }
  }
  std::string message = "no model \"" + name + "\"; looked for";
  for (size_t i = 0; i < tried.size(); ++i) {
    message += (i == 0 ? " " : ", ") + tried[i].string();
  }
  return not_found(message +
                   ". Give a GGUF file or a Hugging Face folder, or fetch the default model with "
                   "scripts/get-model smollm2");
}

Result<fs::path> resolve_model(std::string_view name) {
  return resolve_model(name, ModelSearch::from_environment());
}

}  // namespace quire
