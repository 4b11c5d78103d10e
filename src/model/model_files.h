// The files of a model, opened and understood, before any weight is read.
#pragma once

#include <filesystem>

#include "base/status.h"
#include "model/architecture.h"
#include "model/checkpoint.h"
#include "model/loader.h"

namespace quire {

struct ModelFiles {
  ModelInfo info;
  const Architecture* architecture = nullptr;
  Checkpoint checkpoint;
};

Result<ModelFiles> open_model_files(const std::filesystem::path& path);
// The two kinds (open_model_files chooses).
Result<ModelFiles> open_gguf_model(const std::filesystem::path& path);
Result<ModelFiles> open_folder_model(const std::filesystem::path& folder);

}  // namespace quire
