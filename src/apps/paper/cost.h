// Model-time: what a step of the scheduler would take on the PagedAttention paper's machine, by a
// cost model. Simulated: no kernel runs. Parameters and where they come from:
// bench/paper/model_time.json, which is compiled in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "engine/policies.h"
#include "engine/scheduled_batch.h"

namespace quire {

struct CostModel {
  std::string name;
  double num_layers, hidden_size, max_model_len, num_weights, kv_memory_bytes, block_size,
      max_num_seqs, max_num_batched_tokens, peak_flops, memory_bandwidth, gemm_efficiency,
      weight_read_efficiency, kv_read_efficiency, attention_efficiency, step_seconds,
      paged_overhead_tokens, host_bandwidth, transfer_seconds;

  double kv_bytes_per_token() const { return 2 * 2 * hidden_size * num_layers; }
};

// Log-normal, values outside [min, max] drawn again.
struct LengthDistribution {
  double mu, sigma;
  int min, max;
};
struct PaperWorkload {
  LengthDistribution input, output;
};

struct PaperParameters {
  CostModel cost;
  PaperWorkload sharegpt, alpaca, translation;
};

Result<PaperParameters> parse_paper_parameters(std::string_view json);
// bench/paper/model_time.json, as it was when this was built.
std::string_view paper_parameters_json();

// max(arithmetic, reading the weights) + attention + copies and swaps + a constant.
double seconds_of_step(const CostModel& cost,
                       const ScheduledBatch& batch,
                       int block_size,
                       KvPolicy policy);
// The same for blocks copied to the host or back.
double seconds_to_swap(const CostModel& cost, double num_blocks, int block_size);

}  // namespace quire
