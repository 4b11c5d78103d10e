// Experiments on a model on this CPU: every step is computed, and takes what it takes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/paper/platform.h"
#include "model/loader.h"

namespace quire {

// The paper's server at an eighth of its lengths, its KV memory with them: what memory holds,
// counted in requests, stays.
PaperSizes measured_sizes(const PaperSizes& paper);

class MeasuredPlatform : public PaperPlatform {
 public:
  // `model` as for quire run; num_threads 0: every core. Prompts are pieces of `text`.
  static Result<std::unique_ptr<MeasuredPlatform>> load(const std::string& model,
                                                        int num_threads,
                                                        const PaperSizes& sizes,
                                                        std::string_view text);
  const std::string& name() const override { return name_; }
  bool is_simulated() const override { return false; }
  const PaperSizes& sizes() const override { return sizes_; }
  int32_t token(int prompt, int position) const override;
  Result<std::unique_ptr<PaperMachine>> machine(const PaperRun& run) const override;

 private:
  MeasuredPlatform() = default;

  std::string name_;
  PaperSizes sizes_;
  int num_threads_ = 0;
  std::vector<int32_t> text_;
  std::shared_ptr<const Model> model_;
};

// A text that is always there: the licence of quire.
std::string_view paper_prompt_text();

}  // namespace quire
