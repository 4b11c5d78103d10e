// The paper's machine in model-time: nothing is computed, a step takes what the cost model says.
#pragma once

#include <memory>
#include <string>

#include "apps/paper/cost.h"
#include "apps/paper/platform.h"

namespace quire {

class ModelTimePlatform : public PaperPlatform {
 public:
  explicit ModelTimePlatform(const CostModel& cost);
  const std::string& name() const override { return cost_.name; }
  bool is_simulated() const override { return true; }
  const PaperSizes& sizes() const override { return sizes_; }
  int32_t token(int prompt, int position) const override { return prompt == 0 ? position : prompt; }
  Result<std::unique_ptr<PaperMachine>> machine(const PaperRun& run) const override;

 private:
  CostModel cost_;
  PaperSizes sizes_;
};

}  // namespace quire
