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

Result<LoadedModel> load_model(const std::filesystem::path& path, const LoadOptions& options) {
  QUIRE_ASSIGN_OR_RETURN(ModelFiles files, open_model_files(path));
  ModelConfig& config = files.info.config;
  // A learned table of positions has the size the checkpoint says.
  if (options.max_positions > 0 && config.rope.rotary_dim > 0) {
    config.max_position = std::min(config.max_position, options.max_positions);
  }
  QUIRE_ASSIGN_OR_RETURN(
      WeightLoader weights,
      WeightLoader::create(files.checkpoint, files.info.format, *files.architecture));
  std::unique_ptr<DecoderModel> model = files.architecture->make(config, weights);
  Result<HugeBuffer> memory = weights.finish(options.num_threads, options.progress);
  if (!memory.ok()) return memory.status().with_context(path.string());
  LoadedModel loaded;
  loaded.weight_bytes = weights.packed_bytes_used();
  model->adopt(std::move(memory).value(),
               rope_table(config.rope, config.max_position, options.num_threads));
  loaded.model = std::move(model);
  loaded.info = std::move(files.info);
  return loaded;
}

}  // namespace quire
