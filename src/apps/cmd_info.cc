// quire info: what a model is made of, from its headers alone.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "apps/terminal.h"
#include "frontend/json.h"
#include "kernels/backend.h"
#include "model/loader.h"

namespace quire {
namespace {

constexpr DType kKvTypes[] = {DType::kF16, DType::kBF16, DType::kF32};

int64_t kv_bytes_per_token(const ModelConfig& config, DType type) {
  return config.num_layers * kv_block_bytes({.dtype = type,
                                             .block_size = 1,
                                             .num_kv_heads = config.num_kv_heads,
                                             .head_dim = config.head_dim});
}

Json describe_tokenizer(const TokenizerSource& source) {
  if (const auto* gguf = std::get_if<GgufTokenizerSpec>(&source)) {
    return {{"source", "GGUF metadata"},
            {"model", gguf->model},
            {"pre", gguf->pre},
            {"tokens", gguf->tokens.size()}};
  }
  return {{"source", "tokenizer.json"}, {"bytes", std::get<std::string>(source).size()}};
}

Json describe(const ModelInfo& info) {
  const ModelConfig& c = info.config;
  Json tensors = Json::array();
  for (const TensorGroup& group : info.tensors) {
    tensors.push_back({{"group", group.group},
                       {"type", dtype_info(group.type).name},
                       {"tensors", group.num_tensors},
                       {"elements", group.num_elements},
                       {"bytes", group.bytes}});
  }
  Json kv = Json::object();
  for (const DType type : kKvTypes) kv[dtype_info(type).name] = kv_bytes_per_token(c, type);
  return {{"path", info.path.string()},
          {"name", c.name},
          {"licence", c.licence},
          {"architecture", c.architecture},
          {"parameters", info.num_parameters},
          {"checkpoint_bytes", info.checkpoint_bytes},
          {"context_length", c.max_position},
          {"layers", c.num_layers},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"heads", c.num_heads},
          {"kv_heads", c.num_kv_heads},
          {"head_dim", c.head_dim},
          {"vocab_size", c.vocab_size},
          {"sliding_window", c.sliding_window},
          {"tied_embeddings", c.tie_embeddings},
          {"end_token_ids", c.eos_token_ids},
          {"kv_bytes_per_token", kv},
          {"tensors", tensors},
          {"tokenizer", describe_tokenizer(info.tokenizer)},
          {"chat_template", info.chat_template ? Json(*info.chat_template) : Json()}};
}

void print(const ModelInfo& info, const Json& facts) {
  const ModelConfig& c = info.config;
  const auto line = [](const char* name, const std::string& value) {
    std::printf("%-16s %s\n", name, value.c_str());
  };
  line("model", c.name.empty() ? info.path.string() : c.name);
  line("licence", c.licence.empty() ? "not stated" : c.licence);
  line("architecture", c.architecture + ", " + std::to_string(c.num_layers) + " layers");
  line("parameters", human_count(info.num_parameters) + ", " + human_bytes(info.checkpoint_bytes));
  line("shapes",
       "hidden " + std::to_string(c.hidden_size) + ", intermediate " +
           std::to_string(c.intermediate_size) + ", heads " + std::to_string(c.num_heads) + " (" +
           std::to_string(c.num_kv_heads) + " KV) of " + std::to_string(c.head_dim) +
           ", vocabulary " + std::to_string(c.vocab_size) + (c.tie_embeddings ? " (tied)" : ""));
  line("context",
       std::to_string(c.max_position) + " tokens" +
           (c.sliding_window > 0 ? ", window " + std::to_string(c.sliding_window) : ""));
  std::string kv;
  for (const DType type : kKvTypes) {
    kv += (kv.empty() ? "" : ", ") + human_bytes(kv_bytes_per_token(c, type)) + " in " +
          dtype_info(type).name;
  }
  line("KV per token", kv);
  const Json& tokenizer = facts["tokenizer"];
  line("tokenizer",
       tokenizer["source"].get<std::string>() +
           (tokenizer.contains("pre") ? ", " + tokenizer["model"].get<std::string>() + " (" +
                                            tokenizer["pre"].get<std::string>() + ")"
                                      : ""));
  line("chat template",
       info.chat_template ? std::to_string(info.chat_template->size()) + " bytes" : "none");
  std::printf("\n%-12s %-6s %8s %12s %12s\n", "tensors", "type", "count", "elements", "size");
  for (const TensorGroup& group : info.tensors) {
    std::printf("%-12s %-6s %8lld %12s %12s\n",
                group.group.c_str(),
                dtype_info(group.type).name,
                static_cast<long long>(group.num_tensors),
                human_count(group.num_elements).c_str(),
                human_bytes(group.bytes).c_str());
  }
}

Status run(const std::string& model, bool json) {
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(model));
  QUIRE_ASSIGN_OR_RETURN(const ModelInfo info, inspect_model(path));
  const Json facts = describe(info);
  if (json) {
    return write_stdout(dump_json(facts, 2) + "\n");
  }
  print(info, facts);
  return {};
}

}  // namespace

Command add_info_command(CommandLine line) {
  auto model = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  line.option("MODEL", *model, "model, as for quire run").required();
  line.flag("--json", *json, "print one JSON object, the chat template included");
  return [model, json] { return run(*model, *json); };
}

}  // namespace quire
