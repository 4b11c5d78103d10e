// quire plan: every byte that a model and these flags will take, from the model's headers alone.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "apps/command.h"
#include "apps/confirm_plan.h"
#include "apps/engine_flags.h"
#include "apps/terminal.h"
#include "frontend/json.h"

namespace quire {
namespace {

struct Item {
  const char* key;
  const char* name;
  int64_t bytes;
  std::string note;
};

std::string count(int64_t n, const char* what) { return std::to_string(n) + " " + what; }

// Everything that makes up the peak, the KV pool last.
std::vector<Item> items(const LlmPlan& plan, const EngineConfig& config) {
  const MemoryPlan& m = plan.memory;
  const std::string threads = count(m.num_threads, "threads (--threads)");
  return {
      {"weights", "weights, packed", m.weight_bytes, ""},
      {"rope_table", "rotary table", m.rope_bytes, count(m.kv.max_model_len, "positions")},
      {"activations",
       "activations",
       m.activation_bytes,
       count(config.max_num_batched_tokens, "tokens a step (--max-num-batched-tokens)")},
      {"logits",
       "logits",
       m.logits_bytes,
       count(m.max_logit_rows, "rows (--max-num-seqs, and up to 256 of prompts)")},
      {"kernel_scratch",
       "kernel scratch",
       m.scratch_bytes,
       threads + ", " + human_bytes(m.scratch_reserved) + " reserved"},
      {"sampler", "sampler", m.sampler_bytes, threads},
      {"bookkeeping", "bookkeeping", m.bookkeeping_bytes, "blocks, tables, tokens, batches"},
      {"tokenizer", "tokenizer", m.tokenizer_bytes, "estimated"},
      {"program", "program", m.program_bytes, "code, libraries, stacks"},
      {"page_rounding", "whole pages", m.rounding_bytes, "of the large buffers, 2 MiB each"},
      {"swap_space", "swap space", m.swap_bytes, count(m.num_host_blocks, "blocks (--swap-space)")},
      {"kv_pool",
       "KV pool",
       m.kv.pool_bytes,
       count(m.kv.num_blocks, "blocks of ") + count(config.block_size, "tokens, ") +
           human_bytes(m.kv.bytes_per_token) + " a token (--kv-cache-memory-bytes)"},
  };
}

// Powers of four up to the longest sequence, and that one.
std::vector<int> lengths(int max_model_len) {
  std::vector<int> all;
  for (int64_t length = 256; length < max_model_len; length *= 4) {
    all.push_back(static_cast<int>(length));
  }
  if (max_model_len > 0) all.push_back(max_model_len);
  return all;
}

int64_t running(const MemoryPlan& plan, const EngineConfig& config, int length) {
  return std::min<int64_t>(plan.num_sequences(length), config.max_num_seqs);
}

Json describe(const LlmPlan& plan, const EngineConfig& config) {
  const MemoryPlan& m = plan.memory;
  Json bytes = Json::object(), weights = Json::array(), sequences = Json::array();
  for (const Item& item : items(plan, config)) bytes[item.key] = item.bytes;
  for (const PackedGroup& group : m.weights) {
    weights.push_back({{"group", group.group},
                       {"type", dtype_info(group.type).name},
                       {"tensors", group.num_tensors},
                       {"bytes", group.bytes}});
  }
  for (const int length : lengths(m.kv.max_model_len)) {
    sequences.push_back({{"tokens", length},
                         {"kv_pool_holds", m.num_sequences(length)},
                         {"run_at_once", running(m, config, length)}});
  }
  return {{"path", plan.info.path.string()},
          {"name", plan.info.config.name},
          {"fits", m.refusal.ok()},
          {"refusal", m.refusal.ok() ? Json() : Json(m.refusal.message())},
          {"available_bytes", m.available_bytes},
          {"peak_bytes", m.peak_bytes()},
          {"bytes", bytes},
          {"weights", weights},
          {"kv",
           {{"type", dtype_info(kv_cache_type(config)).name},
            {"bytes_per_token", m.kv.bytes_per_token},
            {"block_size", config.block_size},
            {"block_bytes", m.kv.block_bytes},
            {"num_blocks", m.kv.num_blocks},
            {"num_tokens", m.kv.num_tokens},
            {"num_swap_blocks", m.num_host_blocks}}},
          {"max_model_len", m.kv.max_model_len},
          {"sequences", sequences}};
}

void print(const LlmPlan& plan, const EngineConfig& config) {
  const MemoryPlan& m = plan.memory;
  std::printf("%-12s %-6s %8s %12s\n", "weights", "type", "tensors", "in memory");
  for (const PackedGroup& group : m.weights) {
    std::printf("%-12s %-6s %8lld %12s\n",
                group.group.c_str(),
                dtype_info(group.type).name,
                static_cast<long long>(group.num_tensors),
                human_bytes(group.bytes).c_str());
  }
  std::printf("\n%-16s %12s %15s\n", "at the peak", "size", "bytes");
  const auto line = [](const char* name, int64_t bytes, const std::string& note) {
    std::printf("%-16s %12s %15lld%s%s\n",
                name,
                human_bytes(bytes).c_str(),
                static_cast<long long>(bytes),
                note.empty() ? "" : "  ",
                note.c_str());
  };
  for (const Item& item : items(plan, config)) {
    if (item.bytes > 0 || item.key == std::string("kv_pool")) {
      line(item.name, item.bytes, item.note);
    }
  }
  line("total", m.peak_bytes(), "");
  line("available", m.available_bytes, "now");
  std::printf("\nmax_model_len    %12d tokens (--max-model-len)\n", m.kv.max_model_len);
  std::printf("%-16s %12s %15s\n", "sequences of", "pool holds", "run at once");
  for (const int length : lengths(m.kv.max_model_len)) {
    std::printf("%9d tokens %12lld %15lld\n",
                length,
                static_cast<long long>(m.num_sequences(length)),
                static_cast<long long>(running(m, config, length)));
  }
}

void print(const PlanConfirmation& c) {
  const auto planned = static_cast<double>(c.planned_bytes);
  std::printf(
      "\na step of %d tokens and one of %d sequences took %s; planned for them %s: %+.2f %%\n",
      c.num_tokens,
      c.num_seqs,
      human_bytes(c.measured_bytes).c_str(),
      human_bytes(c.planned_bytes).c_str(),
      100 * (static_cast<double>(c.measured_bytes) - planned) / planned);
}

// What does not fit is printed with the rest, and is the command's error; so is a plan that does
// not hold.
Status run(const LlmConfig& config, bool json, bool confirm) {
  QUIRE_ASSIGN_OR_RETURN(const LlmPlan plan, plan_llm(config));
  std::optional<PlanConfirmation> confirmation;
  if (confirm && plan.memory.refusal.ok()) {
    QUIRE_ASSIGN_OR_RETURN(confirmation, confirm_plan(config, plan));
  }
  if (json) {
    Json text = describe(plan, config.engine);
    if (confirmation) {
      text["confirmed"] = {{"tokens", confirmation->num_tokens},
                           {"sequences", confirmation->num_seqs},
                           {"planned_bytes", confirmation->planned_bytes},
                           {"measured_bytes", confirmation->measured_bytes},
                           {"holds", confirmation->holds()}};
    }
    QUIRE_RETURN_IF_ERROR(write_stdout(dump_json(text, 2) + "\n"));
  } else {
    print(plan, config.engine);
    if (confirmation) print(*confirmation);
  }
  QUIRE_RETURN_IF_ERROR(plan.memory.refusal);
  if (!confirmation || confirmation->holds()) return {};
  return internal_error("the steps took " + std::to_string(confirmation->measured_bytes) +
                        " bytes; planned were " + std::to_string(confirmation->planned_bytes) +
                        ", and 1 % and 4 MiB are allowed: please report this");
}

}  // namespace

Command add_plan_command(CommandLine line) {
  auto config = std::make_shared<LlmConfig>();
  auto json = std::make_shared<bool>(false);
  add_model_argument(line, *config);
  add_engine_flags(line, *config);
  auto confirm = std::make_shared<bool>(false);
  line.flag("--json", *json, "print one JSON object");
  line.flag("--confirm",
            *confirm,
            "load the model, compute a step of the largest size, and compare this process's peak "
            "with the plan of that step: more than 1 % and 4 MiB off is an error");
  return [config, json, confirm] { return run(*config, *json, *confirm); };
}

}  // namespace quire
