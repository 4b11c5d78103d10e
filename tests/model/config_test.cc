#include <gtest/gtest.h>

#include "model/config_reader.h"
#include "model/gguf_builder.h"

namespace quire {
namespace {

using testing::GgufBuilder;

// A Llama configuration with `more` members after the usual ones (the last of equal keys counts).
std::string llama(const std::string& more = "") {
  return R"({"architectures":["LlamaForCausalLM"],"hidden_size":64,"num_hidden_layers":2,)"
         R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":96,)"
         R"("vocab_size":256,"max_position_embeddings":128,"rms_norm_eps":1e-5)" +
         (more.empty() ? "" : "," + more) + "}";
}

Result<ParsedConfig> parse(const std::string& text) {
  QUIRE_ASSIGN_OR_RETURN(JsonValue json, parse_json(text));
  return config_from_json(json);
}

ModelConfig config_of(const std::string& text) {
  Result<ParsedConfig> parsed = parse(text);
  QUIRE_CHECK_MSG(parsed.ok(), parsed.status().message().c_str());
  return parsed->config;
}

void expect_error(const std::string& text, StatusCode code, const std::string& message) {
  Result<ParsedConfig> parsed = parse(text);
  ASSERT_FALSE(parsed.ok()) << "wanted: " << message;
  EXPECT_EQ(parsed.status().code(), code) << parsed.status().message();
  EXPECT_NE(parsed.status().message().find(message), std::string::npos)
      << parsed.status().message();
}

TEST(ConfigJsonTest, ReadsShapesAndDefaults) {
  const ModelConfig c = config_of(llama());
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.rope.rotary_dim, 16);
  EXPECT_EQ(c.rope.theta, 10000.0);
  EXPECT_EQ(c.rope.scaling, RopeScaling::kNone);
  EXPECT_FALSE(c.tie_embeddings);
  EXPECT_EQ(c.sliding_window, 0);
  EXPECT_TRUE(c.eos_token_ids.empty());
  EXPECT_EQ(config_of(llama(R"("head_dim":32)")).head_dim, 32);
  EXPECT_EQ(config_of(llama(R"("num_key_value_heads":null)")).num_kv_heads, 4);
}

TEST(ConfigJsonTest, ReadsOneEndTokenOrASet) {
  EXPECT_EQ(config_of(llama(R"("eos_token_id":7)")).eos_token_ids, (std::vector<int32_t>{7}));
  EXPECT_EQ(config_of(llama(R"("eos_token_id":[7,9])")).eos_token_ids,
            (std::vector<int32_t>{7, 9}));
  expect_error(llama(R"("eos_token_id":"x")"), StatusCode::kDataLoss, "\"eos_token_id\" is not");
  expect_error(llama(R"("eos_token_id":300)"), StatusCode::kUnsupported, "outside the vocabulary");
}

TEST(ConfigJsonTest, ReadsRopeScalingOfOldAndNewFiles) {
  const ModelConfig old_file = config_of(llama(
      R"("rope_theta":5e5,"rope_scaling":{"rope_type":"llama3","factor":8.0,)"
      R"("low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64})"));
  const ModelConfig new_file = config_of(llama(
      R"("rope_parameters":{"rope_theta":5e5,"rope_type":"llama3","factor":8.0,)"
      R"("low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64})"));
  for (const ModelConfig& c : {old_file, new_file}) {
    EXPECT_EQ(c.rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(c.rope.theta, 5e5);
    EXPECT_EQ(c.rope.factor, 8.0);
    EXPECT_EQ(c.rope.original_max_position, 64);
    EXPECT_EQ(c.max_position, 128);
  }
}

TEST(ConfigJsonTest, ScalingExtendsTheContextAsVllmDoes) {
  EXPECT_EQ(config_of(llama(R"("rope_scaling":{"type":"linear","factor":2.5})")).max_position, 320);
  EXPECT_EQ(config_of(llama(R"("rope_scaling":{"type":"yarn","factor":4.0,)"
                            R"("original_max_position_embeddings":64})"))
                .max_position,
            256);
  EXPECT_EQ(config_of(llama(R"("rope_scaling":{"type":"dynamic","factor":4.0})")).max_position,
            128);
}

TEST(ConfigJsonTest, RefusesUnknownScaling) {
  expect_error(llama(R"("rope_scaling":{"type":"magic","factor":2})"),
               StatusCode::kUnsupported,
               "rope scaling \"magic\"; supported: default, linear, dynamic, yarn, llama3");
  expect_error(llama(R"("rope_scaling":{"type":"longrope","factor":2})"),
               StatusCode::kUnsupported,
               "rope scaling \"longrope\"");
  expect_error(
      llama(R"("rope_scaling":{"type":"linear"})"), StatusCode::kDataLoss, "\"factor\" is missing");
}

TEST(ConfigJsonTest, SlidingWindows) {
  auto mistral = [](const std::string& more) {
    return config_of(llama(R"("architectures":["MistralForCausalLM"])" + more)).sliding_window;
  };
  EXPECT_EQ(mistral(""), 4096);
  EXPECT_EQ(mistral(R"(,"sliding_window":null)"), 0);
  EXPECT_EQ(mistral(R"(,"sliding_window":24)"), 24);
  auto qwen = [](const std::string& more) {
    return config_of(llama(R"("architectures":["Qwen2ForCausalLM"],"sliding_window":24)" + more));
  };
  EXPECT_EQ(qwen("").sliding_window, 0);
  EXPECT_EQ(qwen(R"(,"use_sliding_window":true,"max_window_layers":1)").first_window_layer, 1);
  EXPECT_EQ(qwen(R"(,"use_sliding_window":true,"max_window_layers":1)").sliding_window, 24);
  const std::string layers = R"("architectures":["Qwen2ForCausalLM"],"use_sliding_window":true,)"
                             R"("layer_types":)";
  EXPECT_EQ(
      config_of(llama(layers + R"(["full_attention","sliding_attention"])")).first_window_layer, 1);
  expect_error(llama(layers + R"(["sliding_attention","full_attention"])"),
               StatusCode::kUnsupported,
               "only the lower layers may be full");
}

TEST(ConfigJsonTest, UnknownArchitectureListsTheSupportedOnes) {
  expect_error(llama(R"("architectures":["GemmaForCausalLM"])"),
               StatusCode::kUnsupported,
               "architecture \"GemmaForCausalLM\"; supported: LlamaForCausalLM, "
               "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, OPTForCausalLM");
  expect_error(llama(R"("architectures":[])"), StatusCode::kDataLoss, "does not name one");
}

TEST(ConfigJsonTest, RefusesWhatDoesNotFit) {
  expect_error("[]", StatusCode::kDataLoss, "not a JSON object");
  expect_error(llama(R"("hidden_size":null)"), StatusCode::kDataLoss, "\"hidden_size\" is missing");
  expect_error(
      llama(R"("hidden_size":"64")"), StatusCode::kDataLoss, "\"hidden_size\" is not an integer");
  expect_error(llama(R"("hidden_size":99999999999)"),
               StatusCode::kDataLoss,
               "\"hidden_size\" is not an integer");
  expect_error(llama(R"("hidden_size":66)"), StatusCode::kUnsupported, "is not a multiple of");
  expect_error(llama(R"("num_key_value_heads":3)"),
               StatusCode::kUnsupported,
               "4 attention heads are not a multiple of 3 key-value heads");
  expect_error(
      llama(R"("num_attention_heads":0)"), StatusCode::kUnsupported, "num_attention_heads");
  expect_error(llama(R"("num_hidden_layers":-1)"),
               StatusCode::kUnsupported,
               "the number of layers is -1; supported: 1 to 1024");
  expect_error(llama(R"("head_dim":512)"), StatusCode::kUnsupported, "the head dimension is 512");
  expect_error(llama(R"("head_dim":15)"), StatusCode::kUnsupported, "rotary dimension is 15");
  expect_error(llama(R"("hidden_act":"gelu")"),
               StatusCode::kUnsupported,
               "activation \"gelu\"; supported for LlamaForCausalLM: silu");
  expect_error(llama(R"("quantization_config":{"bits":4})"),
               StatusCode::kUnsupported,
               "quantization_config");
}

TEST(ConfigJsonTest, GenerationConfigGivesSamplingDefaultsAndEndTokens) {
  std::vector<int32_t> eos = {1};
  Result<GenerationDefaults> defaults = generation_from_json(
      *parse_json(R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"top_k":50,)"
                  R"("eos_token_id":[2,3],"max_new_tokens":100})"),
      &eos);
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->temperature, 0.6);
  EXPECT_EQ(defaults->top_p, 0.9);
  EXPECT_EQ(defaults->top_k, 50);
  EXPECT_EQ(defaults->min_p, -1);
  EXPECT_EQ(defaults->max_new_tokens, 100);
  EXPECT_EQ(eos, (std::vector<int32_t>{2, 3}));
  defaults = generation_from_json(*parse_json("{}"), &eos);
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->temperature, -1);
  EXPECT_EQ(eos, (std::vector<int32_t>{2, 3}));
}

// ---- GGUF

GgufBuilder gguf(const std::string& arch = "llama") {
  GgufBuilder builder;
  builder.string("general.architecture", arch)
      .string("general.name", "Tiny")
      .string("general.license", "apache-2.0")
      .u32(arch + ".block_count", 1)
      .u32(arch + ".embedding_length", 8)
      .u32(arch + ".feed_forward_length", 12)
      .u32(arch + ".attention.head_count", 2)
      .u32(arch + ".attention.head_count_kv", 1)
      .u32(arch + ".context_length", 64)
      .f32(arch + ".rope.freq_base", 1e5f)
      .f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f)
      .string("tokenizer.ggml.model", "gpt2")
      .string("tokenizer.ggml.pre", "smollm")
      .strings("tokenizer.ggml.tokens", {"a", "b", "<e>"})
      .strings("tokenizer.ggml.merges", {"a b"})
      .u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2)
      .u32("tokenizer.ggml.eot_token_id", 1)
      .u32("tokenizer.ggml.eom_token_id", 2)
      .f32_tensor("token_embd.weight", {8, 3}, std::vector<float>(24));
  return builder;
}

Result<ParsedConfig> parse(const GgufBuilder& builder) {
  QUIRE_ASSIGN_OR_RETURN(GgufFile file,
                         read_gguf(InputFile::from_memory("t.gguf", builder.build())));
  return config_from_gguf(file);
}

void expect_error(const GgufBuilder& builder, StatusCode code, const std::string& message) {
  Result<ParsedConfig> parsed = parse(builder);
  ASSERT_FALSE(parsed.ok()) << "wanted: " << message;
  EXPECT_EQ(parsed.status().code(), code) << parsed.status().message();
  EXPECT_NE(parsed.status().message().find(message), std::string::npos)
      << parsed.status().message();
}

TEST(ConfigGgufTest, ReadsShapesTokensAndLicence) {
  Result<ParsedConfig> parsed = parse(gguf());
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const ModelConfig& c = parsed->config;
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.name, "Tiny");
  EXPECT_EQ(c.licence, "apache-2.0");
  EXPECT_EQ(c.head_dim, 4);
  EXPECT_EQ(c.vocab_size, 3);
  EXPECT_EQ(c.max_position, 64);
  EXPECT_EQ(c.rope.theta, 1e5);
  EXPECT_EQ(c.rope.rotary_dim, 4);
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{2, 1}));  // eos, eot; eom is eos again
}

TEST(ConfigGgufTest, ReadsYarnAndFrequencyFactors) {
  GgufBuilder builder = gguf();
  builder.string("llama.rope.scaling.type", "yarn")
      .f32("llama.rope.scaling.factor", 4.0f)
      .u32("llama.rope.scaling.original_context_length", 16);
  Result<ParsedConfig> parsed = parse(builder);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(parsed->config.rope.original_max_position, 16);
  builder = gguf();
  builder.f32_tensor("rope_freqs.weight", {2}, {1.0f, 8.0f});
  parsed = parse(builder);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->config.rope.frequency_factors, (std::vector<double>{1.0, 8.0}));
  builder = gguf();
  builder.f32_tensor("rope_freqs.weight", {3}, {1.0f, 8.0f, 8.0f});
  expect_error(builder, StatusCode::kUnsupported, "rope_freqs has 3 values; wanted 2");
  builder = gguf();
  builder.f32_tensor("rope_freqs.weight", {2}, {1.0f, 0.0f});
  expect_error(builder, StatusCode::kDataLoss, "values must be above 0");
}

TEST(ConfigGgufTest, RefusesWhatDoesNotFit) {
  expect_error(gguf("gemma3"),
               StatusCode::kUnsupported,
               "GGUF architecture \"gemma3\"; supported: llama, qwen2, qwen3");
  expect_error(gguf("opt"), StatusCode::kUnsupported, "GGUF architecture \"opt\"");
  GgufBuilder builder;
  expect_error(builder, StatusCode::kDataLoss, "\"general.architecture\" is missing");
  builder.string("general.architecture", "llama");
  expect_error(builder, StatusCode::kDataLoss, "\"llama.block_count\" is missing");
  builder = gguf();
  builder.u32("llama.expert_count", 8);
  expect_error(builder, StatusCode::kUnsupported, "mixture of 8 experts");
  builder = gguf();
  builder.u32("llama.vocab_size", 7);
  expect_error(builder,
               StatusCode::kDataLoss,
               "the vocabulary has 7 tokens, but token_embd.weight has 3 rows");
  builder = gguf();
  builder.u32("llama.attention.value_length", 2);
  expect_error(builder, StatusCode::kUnsupported, "they must be equal");
  builder = gguf();
  builder.u32("llama.rope.dimension_count", 2);
  expect_error(builder, StatusCode::kUnsupported, "rotary embedding of 2 of each head's 4");
  builder = gguf();
  builder.tensors.clear();
  expect_error(builder, StatusCode::kNotFound, "token_embd.weight");
}

TEST(ConfigGgufTest, ReadsTheTokenizer) {
  Result<GgufFile> file = read_gguf(InputFile::from_memory("t.gguf", gguf().build()));
  ASSERT_TRUE(file.ok());
  Result<GgufTokenizerSpec> spec = tokenizer_from_gguf(file->metadata, 3);
  ASSERT_TRUE(spec.ok()) << spec.status().message();
  EXPECT_EQ(spec->model, "gpt2");
  EXPECT_EQ(spec->pre, "smollm");
  EXPECT_EQ(spec->tokens[2], "<e>");
  EXPECT_EQ(spec->merges, (std::vector<std::string>{"a b"}));
  EXPECT_EQ(spec->bos, 1);
  EXPECT_EQ(spec->eos, 2);
  EXPECT_EQ(spec->add_bos, std::nullopt);
  Status status = tokenizer_from_gguf(file->metadata, 2).status();
  EXPECT_NE(status.message().find("the tokenizer has 3 tokens, but the embedding has only 2 rows"),
            std::string::npos);
}

}  // namespace
}  // namespace quire
