#include "apps/paper/cost.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "frontend/json.h"

namespace quire {

namespace {

Result<double> number_at(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) {
    return data_loss(where + ": \"" + key + "\" must be a number");
  }
  return found->get<double>();
}

Result<double> parameter(const Json& parameters, const char* name) {
  const auto found = parameters.find(name);
  if (found == parameters.end() || !found->is_object()) {
    return data_loss(std::string("parameters: \"") + name + "\" is missing");
  }
  QUIRE_ASSIGN_OR_RETURN(const double value, number_at(*found, "value", name));
  if (!(value > 0)) return data_loss(std::string(name) + " must be > 0");
  return value;
}

Result<LengthDistribution> parse_lengths(const Json& object, const std::string& where) {
  LengthDistribution lengths{};
  QUIRE_ASSIGN_OR_RETURN(lengths.mu, number_at(object, "mu", where));
  QUIRE_ASSIGN_OR_RETURN(lengths.sigma, number_at(object, "sigma", where));
  QUIRE_ASSIGN_OR_RETURN(const double min, number_at(object, "min", where));
  QUIRE_ASSIGN_OR_RETURN(const double max, number_at(object, "max", where));
  if (!(min >= 1 && max <= 1e6 && min <= max && lengths.sigma > 0)) {
    return data_loss(where + ": 1 <= min <= max <= 1e6 and sigma > 0 must hold");
  }
  lengths.min = static_cast<int>(min);
  lengths.max = static_cast<int>(max);
  return lengths;
}

Result<PaperWorkload> parse_workload(const Json& workloads, const char* name) {
  const auto found = workloads.find(name);
  if (found == workloads.end() || !found->is_object() || !found->contains("input") ||
      !found->contains("output")) {
    return data_loss(std::string("workloads: \"") + name + "\" needs input and output");
  }
  PaperWorkload workload{};
  QUIRE_ASSIGN_OR_RETURN(workload.input, parse_lengths((*found)["input"], name));
  QUIRE_ASSIGN_OR_RETURN(workload.output, parse_lengths((*found)["output"], name));
  return workload;
}

}  // namespace

Result<PaperParameters> parse_paper_parameters(std::string_view text) {
  QUIRE_ASSIGN_OR_RETURN(const Json json, parse_json_document(text));
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string() ||
      !json.contains("parameters") || !json["parameters"].is_object() ||
      !json.contains("workloads") || !json["workloads"].is_object()) {
    return data_loss("the cost model needs name, parameters and workloads");
  }
  PaperParameters result{};
  CostModel& c = result.cost;
  c.name = json["name"].get<std::string>();
  const std::pair<const char*, double*> fields[] = {
      {"num_layers", &c.num_layers},
      {"hidden_size", &c.hidden_size},
      {"max_model_len", &c.max_model_len},
      {"num_weights", &c.num_weights},
      {"kv_memory_bytes", &c.kv_memory_bytes},
      {"block_size", &c.block_size},
      {"max_num_seqs", &c.max_num_seqs},
      {"max_num_batched_tokens", &c.max_num_batched_tokens},
      {"peak_flops", &c.peak_flops},
      {"memory_bandwidth", &c.memory_bandwidth},
      {"gemm_efficiency", &c.gemm_efficiency},
      {"weight_read_efficiency", &c.weight_read_efficiency},
      {"kv_read_efficiency", &c.kv_read_efficiency},
      {"attention_efficiency", &c.attention_efficiency},
      {"step_seconds", &c.step_seconds},
      {"paged_overhead_tokens", &c.paged_overhead_tokens},
      {"host_bandwidth", &c.host_bandwidth},
      {"transfer_seconds", &c.transfer_seconds}};
  for (const auto& [name, field] : fields) {
    QUIRE_ASSIGN_OR_RETURN(*field, parameter(json["parameters"], name));
  }
  const Json& workloads = json["workloads"];
  QUIRE_ASSIGN_OR_RETURN(result.sharegpt, parse_workload(workloads, "sharegpt"));
  QUIRE_ASSIGN_OR_RETURN(result.alpaca, parse_workload(workloads, "alpaca"));
  QUIRE_ASSIGN_OR_RETURN(result.translation, parse_workload(workloads, "translation"));
  return result;
}

double seconds_to_swap(const CostModel& c, double num_blocks, int block_size) {
  const double bytes = num_blocks * block_size * c.kv_bytes_per_token();
  return num_blocks * 2 * c.num_layers * c.transfer_seconds + bytes / c.host_bandwidth;
}

double seconds_of_step(const CostModel& c,
                       const ScheduledBatch& batch,
                       int block_size,
                       KvPolicy policy) {
  const double bandwidth = c.memory_bandwidth;
  const double num_tokens = static_cast<double>(batch.tokens.size());
  double seconds = c.step_seconds;
  if (num_tokens > 0) {
    const double arithmetic = 2 * c.num_weights * num_tokens / (c.peak_flops * c.gemm_efficiency);
    const double reading = 2 * c.num_weights / (bandwidth * c.weight_read_efficiency);
    seconds += std::max(arithmetic, reading);
  }
  // Without consecutive blocks the kernel looks each of them up.
  const double lookups = is_contiguous(policy) ? 1 : 1 + c.paged_overhead_tokens / block_size;
  const double read_a_token = c.kv_bytes_per_token() / (bandwidth * c.kv_read_efficiency) * lookups;
  const double flops_a_pair = 4 * c.hidden_size * c.num_layers;
  for (const ScheduledSequence& s : batch.sequences) {
    const double context = s.start + s.num_tokens;
    const double pairs = s.num_tokens * (s.start + 0.5 * s.num_tokens);
    const double arithmetic = pairs * flops_a_pair / (c.peak_flops * c.attention_efficiency);
    if (!s.only_samples()) seconds += std::max(context * read_a_token, arithmetic);
  }
  const double num_copied = static_cast<double>(batch.copies.size());
  seconds += 2 * num_copied * block_size * c.kv_bytes_per_token() / bandwidth;
  const double num_swapped = static_cast<double>(batch.swap_in.size() + batch.swap_out.size());
  return seconds + seconds_to_swap(c, num_swapped, block_size);
}

}  // namespace quire
