#include "model/decoder.h"

#include <algorithm>
#include <utility>

namespace quire {
namespace {

// Ops that do nothing, to run an architecture for its allocations alone.
constexpr OpTable kMeasuringOps = {"measuring",
#define QUIRE_NO_OP(op, Args) [](const ExecContext&, const Args&) {},
                                   QUIRE_OPS(QUIRE_NO_OP)
#undef QUIRE_NO_OP
};

}  // namespace

void DecoderModel::adopt(HugeBuffer weights, std::vector<float> rope_table) {
  weights_ = std::move(weights);
  rope_table_ = std::move(rope_table);
}

void DecoderModel::forward(ForwardContext& context) const {
  const ForwardBatch& batch = context.batch;
  QUIRE_CHECK(batch.positions.size() == batch.tokens.size());
  QUIRE_CHECK(batch.slots.size() == batch.tokens.size());
  QUIRE_CHECK(batch.query_start.size() == batch.kv_len.size() + 1);
  QUIRE_CHECK(context.logits.rows == static_cast<int64_t>(batch.logit_rows.size()));
  if (batch.tokens.empty()) return;
  context.workspace->reset();
  Step f(context, config_, rope_table_.data());
  run(f);
}

int64_t DecoderModel::workspace_bytes(int num_tokens,
                                      int num_logit_rows,
                                      ActivationType activations,
                                      FusionSet fusions) const {
  const auto tokens = static_cast<size_t>(num_tokens);
  const std::vector<int32_t> ids(std::max<size_t>(tokens, 1));
  const std::vector<int64_t> slots(ids.size());
  const std::vector<int32_t> rows(static_cast<size_t>(num_logit_rows));
  Workspace workspace = Workspace::measuring();
  KvCache kv;
  ForwardContext context{};
  context.ops = &kMeasuringOps;
  context.activations = activations;
  context.fusions = fusions;
  context.batch.tokens = context.batch.positions = {ids.data(), tokens};
  context.batch.slots = {slots.data(), tokens};
  context.batch.logit_rows = rows;
  context.kv = &kv;
  context.workspace = &workspace;
  Step f(context, config_, nullptr);
  context.logits = {nullptr, num_logit_rows, config_.vocab_size, config_.vocab_size};
  run(f);
  return workspace.peak_bytes();
}

}  // namespace quire
