#include "model/loader.h"

#include <algorithm>
#include <utility>

#include "model/architecture.h"
#include "model/decoder.h"
#include "model/model_files.h"
#include "model/rope.h"
#include "model/weights.h"

namespace quire {

Result<ModelInfo> inspect_model(const std::filesystem::path& path) {
  QUIRE_ASSIGN_OR_RETURN(ModelFiles files, open_model_files(path));
  return std::move(files.info);
}

OpenModel::OpenModel() = default;
OpenModel::OpenModel(OpenModel&&) noexcept = default;
OpenModel& OpenModel::operator=(OpenModel&&) noexcept = default;
OpenModel::~OpenModel() = default;
ModelInfo& OpenModel::info() { return files_->info; }
const ModelInfo& OpenModel::info() const { return files_->info; }

namespace {
// A learned table of positions, without rotary dimensions, has the size the checkpoint says.
int num_positions(const ModelConfig& config, int max_positions) {
  return max_positions > 0 && config.rope.rotary_dim > 0
             ? std::min(config.max_position, max_positions)
             : config.max_position;
}
}  // namespace

int64_t OpenModel::rope_bytes(int max_positions) const {
  const ModelConfig& config = files_->info.config;
  return int64_t{num_positions(config, max_positions)} * config.rope.rotary_dim *
         static_cast<int64_t>(sizeof(float));
}

Result<OpenModel> open_model(const std::filesystem::path& path) {
  QUIRE_ASSIGN_OR_RETURN(ModelFiles files, open_model_files(path));
  WeightLoader weights =
      WeightLoader::measuring(files.checkpoint, files.info.format, *files.architecture);
  OpenModel open;
  open.outline_ = files.architecture->make(files.info.config, weights);
  if (Status status = weights.check_requests(); !status.ok()) {
    return status.with_context(path.string());
  }
  open.weights_ = weights.packed_groups();
  open.weight_bytes_ = weights.bytes_used();
  open.files_ = std::make_unique<ModelFiles>(std::move(files));
  return open;
}

Result<LoadedModel> load_model(const std::filesystem::path& path, const LoadOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(OpenModel open, open_model(path));
  return load_model(std::move(open), options);
}

Result<LoadedModel> load_model(OpenModel open, const LoadOptions& options) {
  ModelFiles& files = *open.files_;
  ModelConfig& config = files.info.config;
  config.max_position = num_positions(config, options.max_positions);
  QUIRE_ASSIGN_OR_RETURN(
      WeightLoader weights,
      WeightLoader::create(
          files.checkpoint, files.info.format, *files.architecture, open.weight_bytes()));
  std::unique_ptr<DecoderModel> model = files.architecture->make(config, weights);
  Result<HugeBuffer> memory = weights.finish(options.num_threads, options.progress);
  if (!memory.ok()) return memory.status().with_context(files.info.path.string());
  LoadedModel loaded;
  loaded.weight_bytes = open.weight_bytes();
  model->adopt(std::move(memory).value(),
               rope_table(config.rope, config.max_position, options.num_threads));
  loaded.model = std::move(model);
  loaded.info = std::move(files.info);
  return loaded;
}

}  // namespace quire
