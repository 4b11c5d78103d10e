// What the decoder-only architectures of model/arch share: memory of weights, the rotary table, and
// how large a workspace a step needs.
#pragma once

#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "model/layers.h"
#include "model/model.h"

namespace quire {

class DecoderModel : public Model {
 public:
  void forward(ForwardContext& context) const final;
  int64_t workspace_bytes(int num_tokens,
                          int num_logit_rows,
                          ActivationType activations,
                          FusionSet fusions) const final;

  // Called once by the loader: the memory that the weights' views point into, and the rope table.
  void adopt(HugeBuffer weights, std::vector<float> rope_table);

 protected:
  explicit DecoderModel(ModelConfig config) : Model(std::move(config)) {}
  // The architecture: reads f.context.batch, writes f.context.logits.
  virtual void run(Step& f) const = 0;

 private:
  HugeBuffer weights_;
  std::vector<float> rope_table_;  // [max_position][rotary_dim]
};

}  // namespace quire
