#include "apps/engine_flags.h"

#include "kernels/backend.h"
#include "model/fusion.h"

namespace quire {

void add_model_argument(CommandLine line, LlmConfig& config) {
  line.option("MODEL",
              config.model,
              "GGUF file, Hugging Face folder, name in the model cache, or org/name in the Hugging "
              "Face cache")
      .required();
}

namespace {

// "{generic,avx2,ref}": the levels of this processor's kind.
std::string isa_names() {
  std::string names = "{";
  for (const IsaLevel& level : cpu_levels()) names += std::string(level.name) + ",";
  return names + "ref}";
}

// What the papers compare with (engine/policies.h).
void add_policy_flags(CommandLine line, LlmConfig& config) {
  EngineConfig& e = config.engine;
  const std::string group = "Experiments";
  line.option("--kv-policy",
              e.kv_policy,
              "paged; contiguous regions of max_model_len (max), of the answer's length rounded "
              "up (pow2) or as told (oracle); copied when it grows (grow); no KV cache (off). "
              "Prefixes and prompts are shared with paged only")
      .type_name("{paged,max,pow2,oracle,grow,off}")
      .shows_default()
      .group(group);
  line.option("--batching",
              e.batching,
              "continuous: requests join and leave at every step; dynamic, static: batches that "
              "answer when their last member has ended")
      .type_name("{continuous,dynamic,static}")
      .shows_default()
      .group(group);
  line.option("--batch-size", e.batch_size, "requests of a dynamic or static batch")
      .human_integer()
      .shows_default()
      .group(group);
  line.option(
          "--fusion",
          e.fusion,
          "which neighbouring ops run as one: on (all), off, or a list with commas; the answers "
          "are the same")
      .type_name("{on,off," + fusion_names() + "}")
      .shows_default()
      .group(group);
  line.option("--batch-window-ms",
              e.batch_window_ms,
              "a dynamic batch starts when its first request has waited so long, or when it is "
              "full")
      .human_integer()
      .shows_default()
      .group(group);
  line.option(
          "--async-tokenize",
          [&config](const std::string& value) -> Status {
            if (value != "on" && value != "off") {
              return invalid_argument("--async-tokenize must be on or off, got '" + value + "'");
            }
            config.async_tokenize = value == "on";
            return {};
          },
          "on: threads beside the engine's encode prompts and make text of tokens; off: the "
          "engine's does, between steps (on by default)")
      .type_name("{on,off}")
      .group(group);
}

}  // namespace

void add_engine_flags(CommandLine line, LlmConfig& config) {
  EngineConfig& e = config.engine;
  const std::string group = "Engine";
  const auto add = [&](const char* name, auto& field, const char* help) {
    return line.option(name, field, help).group(group).shows_default();
  };
  const auto add_count = [&](const char* name, auto& field, const char* help) {
    return add(name, field, help).human_integer();
  };
  add_count("--max-model-len",
            e.max_model_len,
            "tokens of prompt and answer; 0 = what model and memory allow");
  add_count("--max-num-seqs", e.max_num_seqs, "sequences running at once");
  add_count("--max-num-batched-tokens", e.max_num_batched_tokens, "tokens of one step");
  add_count("--block-size", e.block_size, "tokens of a KV block, a power of two up to 256");
  add_count("--kv-cache-memory-bytes",
            e.kv_cache_memory_bytes,
            "size of the KV pool; 0 = a share of free memory");
  add("--kv-cache-memory-share", e.kv_cache_memory_share, "that share of free memory");
  add("--gpu-memory-utilization",
      e.gpu_memory_utilization,
      "size the KV pool so that all together take this share of the machine's whole memory; 0 = "
      "off");
  add("--kv-cache-dtype", e.kv_cache_dtype, "type of keys and values in the pool; auto = float16")
      .type_name("{auto,float16,bfloat16,float32}");
  line.flag("--enable-prefix-caching,!--no-enable-prefix-caching",
            e.enable_prefix_caching,
            "reuse KV blocks of equal prefixes (on by default)")
      .group(group);
  add("--preemption-mode",
      e.preemption_mode,
      "what becomes of KV blocks that others need: recompute, swap, or auto, the cheaper")
      .type_name("{recompute,swap,auto}");
  add_count("--swap-space", e.swap_space_bytes, "bytes of host memory that KV is swapped out to");
  add_count("--long-prefill-token-threshold",
            e.long_prefill_token_threshold,
            "most tokens of one sequence in a step; 0 = no limit");
  add_count("--max-num-queued-reqs",
            e.max_num_queued_reqs,
            "requests waiting before new ones are refused");
  add_count("--max-logprobs",
            e.max_logprobs,
            "most alternatives that --logprobs may ask for; -1 = no limit");
  add("--activations",
      e.activations,
      "into quantised weights: int16 (exact answers), int8 (fast; int16 for the logits), f32")
      .type_name("{int16,int8,f32}");
  add_count("--threads", e.num_threads, "CPU threads; 0 = every core this process may use");
  add("--isa",
      e.isa,
      "instruction set, as in quire devices; empty = QUIRE_ISA, else the best; ref = reference")
      .type_name(isa_names());
  add_policy_flags(line, config);
  line.option("--chat-template", config.chat_template_file, "file with a chat template (Jinja)")
      .group(group);
}

}  // namespace quire
