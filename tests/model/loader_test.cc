#include "model/loader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "model/gguf_builder.h"
#include "model/model_run.h"
#include "model/temp_dir.h"
#include "model/weights.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::GgufBuilder;
using testing::TempDir;

const fs::path kTiny = fs::path(QUIRE_TESTDATA) / "golden" / "tiny";

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

void replace_in(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = slurp(path);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  std::ofstream(path, std::ios::binary) << text.replace(at, from.size(), to);
}

// A copy of a tiny checkpoint that a test may damage.
class LoaderTest : public ::testing::Test {
 protected:
  fs::path copy_of(const std::string& name) {
    const fs::path folder = dir_.path() / name;
    fs::copy(kTiny / name, folder);
    return folder;
  }
  void expect_error(const fs::path& path, StatusCode code, const std::string& text) {
    Result<LoadedModel> loaded = load_model(path, {});
    ASSERT_FALSE(loaded.ok()) << "wanted: " << text;
    EXPECT_EQ(loaded.status().code(), code) << loaded.status().message();
    EXPECT_NE(loaded.status().message().find(text), std::string::npos) << loaded.status().message();
  }
  TempDir dir_;
};

TEST_F(LoaderTest, ReadsEverythingAFolderSays) {
  const fs::path folder = copy_of("llama31_rope");
  dir_.write("llama31_rope/README.md", "---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n");
  dir_.write("llama31_rope/tokenizer_config.json",
             R"({"bos_token":"<s>","eos_token":{"content":"</s>"},"pad_token":null,)"
             R"("chat_template":[{"name":"tool_use","template":"T"},)"
             R"({"name":"default","template":"D"}]})");
  Result<ModelInfo> info = inspect_model(folder);
  ASSERT_TRUE(info.ok()) << info.status().message();
  EXPECT_EQ(info->config.licence, "apache-2.0");
  EXPECT_EQ(info->config.name, "llama31_rope");
  EXPECT_EQ(info->config.eos_token_ids, (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(info->generation.temperature, 0.6);
  EXPECT_EQ(info->special_tokens.bos, "<s>");
  EXPECT_EQ(info->special_tokens.eos, "</s>");
  EXPECT_EQ(info->special_tokens.pad, std::nullopt);
  EXPECT_EQ(info->chat_template, "D");
  EXPECT_EQ(std::get<std::string>(info->tokenizer), slurp(folder / "tokenizer.json"));
  dir_.write("llama31_rope/chat_template.jinja", "J");
  EXPECT_EQ(inspect_model(folder)->chat_template, "J");
}

TEST_F(LoaderTest, SummaryCountsEveryTensorOnce) {
  Result<ModelInfo> info = inspect_model(kTiny / "llama_mqa");
  ASSERT_TRUE(info.ok()) << info.status().message();
  // V 272, E 32, I 48, D 16, H 2, K 1, 2 layers, lm_head untied.
  const int64_t attention = 2 * (2 * 32 * 32 + 2 * 16 * 32), mlp = 2 * 3 * 48 * 32;
  EXPECT_EQ(info->num_parameters, 2 * 272 * 32 + attention + mlp + 5 * 32);
  EXPECT_EQ(info->checkpoint_bytes, 4 * info->num_parameters);
  std::vector<std::string> groups;
  for (const TensorGroup& group : info->tensors) groups.push_back(group.group);
  EXPECT_EQ(groups,
            (std::vector<std::string>{"embedding", "norms", "lm_head", "attention", "mlp"}));
  EXPECT_EQ(info->tensors[3].num_elements, attention);
  EXPECT_EQ(info->tensors[4].num_tensors, 6);
}

TEST_F(LoaderTest, NamesAllMissingTensors) {
  const fs::path folder = copy_of("llama_mqa");
  replace_in(folder / "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  expect_error(folder,
               StatusCode::kNotFound,
               "the checkpoint lacks 9 tensors of LlamaForCausalLM: "
               "model.layers.2.input_layernorm.weight, model.layers.2.self_attn.");
  replace_in(folder / "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
  expect_error(folder, StatusCode::kNotFound, "and 8 more");
}

TEST_F(LoaderTest, NamesTensorsOfTheWrongShape) {
  const fs::path folder = copy_of("llama_mqa");
  replace_in(folder / "config.json", "\"intermediate_size\": 48", "\"intermediate_size\": 64");
  expect_error(folder,
               StatusCode::kDataLoss,
               "tensor model.layers.0.mlp.gate_proj.weight has shape [48, 32], wanted [64, 32]");
}

TEST_F(LoaderTest, NamesAVocabularyThatDoesNotFitTheEmbedding) {
  const fs::path folder = copy_of("llama_mqa");
  replace_in(folder / "config.json", "\"vocab_size\": 272", "\"vocab_size\": 300");
  expect_error(folder,
               StatusCode::kDataLoss,
               "tensor model.embed_tokens.weight has shape [272, 32], wanted [300, 32]");
}

TEST_F(LoaderTest, RefusesFoldersThatAreIncomplete) {
  fs::path folder = copy_of("llama_mqa");
  fs::remove(folder / "tokenizer.json");
  expect_error(folder, StatusCode::kNotFound, "lacks tokenizer.json");
  fs::remove(folder / "config.json");
  expect_error(folder, StatusCode::kNotFound, "config.json");
  folder = copy_of("llama_mha");
  fs::remove(folder / "model-00002-of-00002.safetensors");
  expect_error(folder, StatusCode::kNotFound, "model-00002-of-00002.safetensors");
  expect_error(dir_.path() / "none", StatusCode::kNotFound, "does not exist");
}

TEST_F(LoaderTest, RefusesTruncatedWeights) {
  const fs::path folder = copy_of("llama_mqa"), file = folder / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 1);
  expect_error(folder, StatusCode::kDataLoss, "the file is truncated or damaged");
}

TEST_F(LoaderTest, NoticesAFileThatChangesWhileItIsLoaded) {
  const fs::path folder = copy_of("llama_mqa"), file = folder / "model.safetensors";
  LoadOptions options;
  options.progress = [&](int64_t, int64_t) {
    fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  };
  Result<LoadedModel> loaded = load_model(folder, options);
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.status().message().find("changed while it was loaded"), std::string::npos)
      << loaded.status().message();
  const auto size = fs::file_size(file);
  options.progress = [&](int64_t, int64_t) { fs::resize_file(file, size / 2); };
  loaded = load_model(folder, options);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kDataLoss) << loaded.status().message();
}

TEST_F(LoaderTest, ProgressEndsAtTheTotal) {
  int64_t last = 0, last_total = 0;
  LoadOptions options{.num_threads = 3};
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    last = done;
    last_total = total;
  };
  Result<LoadedModel> loaded = load_model(kTiny / "llama_gqa", options);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(last, last_total);
  EXPECT_EQ(last_total, loaded->info.checkpoint_bytes);
}

TEST_F(LoaderTest, MaxPositionsLowersTheContext) {
  Result<LoadedModel> loaded = load_model(kTiny / "llama_gqa", {.max_positions = 40});
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded->model->config().max_position, 40);
  // A table of learned positions is as long as the checkpoint says.
  EXPECT_EQ(load_model(kTiny / "opt_pre", {.max_positions = 40})->model->config().max_position,
            256);
}

TEST_F(LoaderTest, TokenizerMustFitTheEmbeddingOfAGgufFile) {
  GgufBuilder builder;
  builder.string("general.architecture", "llama").u32("llama.block_count", 1);
  builder.u32("llama.embedding_length", 4).u32("llama.feed_forward_length", 4);
  builder.u32("llama.attention.head_count", 1).u32("llama.context_length", 8);
  builder.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  builder.string("tokenizer.ggml.model", "gpt2").strings("tokenizer.ggml.tokens", {"a", "b", "c"});
  builder.f32_tensor("token_embd.weight", {4, 2}, std::vector<float>(8));
  expect_error(dir_.write("m.gguf", builder.build()),
               StatusCode::kDataLoss,
               "the tokenizer has 3 tokens, but the embedding has only 2 rows");
}

// ---- Names

class ResolveTest : public LoaderTest {
 protected:
  ModelSearch search_{dir_.path() / "quire", dir_.path() / "hub"};
};

TEST_F(ResolveTest, FindsPathsNamesAndHuggingFaceSnapshots) {
  const fs::path file = dir_.write("quire/small.gguf", "x");
  EXPECT_EQ(resolve_model(file.string(), search_).value(), file);
  EXPECT_EQ(resolve_model("small", search_).value(), file);
  dir_.write("hub/models--org--name/refs/main", "abc123\n");
  dir_.write("hub/models--org--name/snapshots/abc123/config.json", "{}");
  EXPECT_EQ(resolve_model("org/name", search_).value(),
            dir_.path() / "hub/models--org--name/snapshots/abc123");
}

TEST_F(ResolveTest, SaysWhereItLookedAndWhatToDo) {
  Status status = resolve_model("nothing", search_).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  for (const std::string& text : {std::string("no model \"nothing\""),
                                  (dir_.path() / "quire/nothing.gguf").string(),
                                  std::string("scripts/get-model smollm2")}) {
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  }
  status = resolve_model("org/nothing", search_).status();
  EXPECT_NE(status.message().find("hub/models--org--nothing"), std::string::npos);
  EXPECT_EQ(resolve_model("", search_).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ResolveTest, RefusesSnapshotsThatAreBrokenOrPointElsewhere) {
  dir_.write("hub/models--org--name/refs/main", "../../..");
  EXPECT_EQ(resolve_model("org/name", search_).status().code(), StatusCode::kDataLoss);
  dir_.write("hub/models--org--name/refs/main", "abc");
  EXPECT_NE(resolve_model("org/name", search_).status().message().find("did not finish"),
            std::string::npos);
}

TEST_F(ResolveTest, ACacheWithoutItsMainRefHasOneSnapshotOrIsRefused) {
  dir_.write("hub/models--org--name/snapshots/abc/config.json", "{}");
  EXPECT_EQ(resolve_model("org/name", search_).value(),
            dir_.path() / "hub/models--org--name/snapshots/abc");
  dir_.write("hub/models--org--name/snapshots/def/config.json", "{}");
  const Status status = resolve_model("org/name", search_).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("holds 2 snapshots: give the folder of one"), std::string::npos)
      << status.message();
}

TEST_F(ResolveTest, AModelOfTheHuggingFaceCacheIsCalledByItsName) {
  const fs::path folder = dir_.path() / "hub/models--org--some--name/snapshots/abc";
  fs::create_directories(folder.parent_path());
  fs::copy(kTiny / "llama_mqa", folder);
  EXPECT_EQ(inspect_model(folder)->config.name, "org/some--name");
  EXPECT_EQ(inspect_model(folder.string() + "/")->config.name, "org/some--name");
  EXPECT_EQ(inspect_model(kTiny / "llama_mqa")->config.name, "llama_mqa");
}

// ---- Memory

TEST(KvCacheTest, LayersAreApartAndZero) {
  const KvLayout layout{DType::kF16, 16, 2, 8};
  Result<KvCache> cache = KvCache::allocate(layout, 3, 5);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->layer(1) - cache->layer(0), 5 * kv_block_bytes(layout));
  EXPECT_EQ(cache->layer(2)[5 * kv_block_bytes(layout) - 1], 0);
  EXPECT_EQ(*cache->overflows(), 0);
}

TEST(KvCacheTest, SaysWhichFlagLowersTheMemory) {
  const KvLayout layout{DType::kF32, 256, 1024, 256};
  for (int64_t blocks : {int64_t{1} << 30, int64_t{1} << 60}) {
    Status status = KvCache::allocate(layout, 1024, blocks).status();
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    EXPECT_NE(status.message().find("--kv-cache-memory-bytes"), std::string::npos)
        << status.message();
  }
  EXPECT_EQ(KvCache::allocate(layout, 1, 0).status().code(), StatusCode::kInvalidArgument);
}

TEST(TensorNamesTest, MapsOurNamesToBothFormats) {
  EXPECT_EQ(checkpoint_name(kDecoderNames, CheckpointFormat::kGguf, "gate", 12, ".weight"),
            "blk.12.ffn_gate.weight");
  EXPECT_EQ(checkpoint_name(kDecoderNames, CheckpointFormat::kSafetensors, "q", 3, ".bias"),
            "model.layers.3.self_attn.q_proj.bias");
  EXPECT_STREQ(tensor_group(kDecoderNames, CheckpointFormat::kGguf, "blk.12.ffn_gate.weight"),
               "mlp");
  EXPECT_STREQ(tensor_group(kDecoderNames, CheckpointFormat::kGguf, "blk.x.ffn_gate.weight"),
               "other");
  EXPECT_STREQ(tensor_group(kDecoderNames, CheckpointFormat::kGguf, "rope_freqs.weight"), "other");
}

}  // namespace
}  // namespace quire
