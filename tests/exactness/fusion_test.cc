// Fused or not, in any of the 16 combinations, the logits have the same bits: on every tiny
// architecture, every ISA level, with every type of activations, in mixed batches, chunks and
// windows; and fused steps meet at few barriers.
#include "model/fusion.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>

#include "base/hash.h"
#include "exactness/exact_run.h"
#include "kernels/backend.h"
#include "model/loader.h"
#include "model/model_run.h"

namespace quire {
namespace {

namespace fs = std::filesystem;
using testing::ExactRun;
using testing::ExactSettings;
using testing::run_exactly;

const fs::path kGolden = fs::path(QUIRE_TESTDATA) / "golden";

std::shared_ptr<const Model> load(const fs::path& path) {
  Result<LoadedModel> loaded = load_model(path, LoadOptions{.num_threads = 2});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  return std::move(loaded.value().model);
}

FusionSet combination(int bits) {
  FusionSet set = FusionSet::none();
  for (int i = 0; i < kNumFusions; ++i) {
    if ((bits >> i & 1) != 0) set = set.with(static_cast<Fusion>(i));
  }
  return set;
}
constexpr int kCombinations = 1 << kNumFusions;

// Every model of golden/tiny and golden/tiny_gguf.
std::vector<fs::path> tiny_models() {
  std::vector<fs::path> models;
  for (const auto& entry : fs::directory_iterator(kGolden / "tiny")) models.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(kGolden / "tiny_gguf")) {
    const bool is_rest = entry.path().stem().string().find("-00002-of-") != std::string::npos;
    if (entry.path().extension() == ".gguf" && !is_rest) models.push_back(entry.path());
  }
  std::ranges::sort(models);
  return models;
}

class FusionExactness : public ::testing::TestWithParam<fs::path> {};

std::vector<std::vector<int32_t>> make_prompts(int vocab_size) {
  std::vector<std::vector<int32_t>> prompts(5);
  const int lengths[] = {1, 40, 3, 70, 17};
  for (size_t i = 0; i < prompts.size(); ++i) {
    for (int j = 0; j < lengths[i]; ++j) {
      prompts[i].push_back(static_cast<int32_t>(mix64(i * 1000 + j + 7) % vocab_size));
    }
  }
  return prompts;
}

// Prompts in chunks of 16 beside others' decode: mixed steps.
TEST_P(FusionExactness, EveryCombinationGivesTheSameBits) {
  const std::shared_ptr<const Model> model = load(GetParam());
  const auto prompts = make_prompts(model->config().vocab_size);
  const bool is_gguf = GetParam().extension() == ".gguf";
  for (const IsaLevel& level : cpu_levels()) {
    if (!level.runs_here) continue;
    for (const char* activations : {"int16", "int8", "f32"}) {
      if (!is_gguf && activations != std::string("int16")) continue;  // plain weights take f32
      ExactSettings s;
      s.isa = level.name;
      s.activations = activations;
      s.max_tokens = 4;
      s.num_kv_tokens = 512;
      s.chunk = 16;
      s.num_threads = 2;
      const ExactRun fused = run_exactly(model, prompts, s);
      ASSERT_EQ(fused.bits.size(), 131u + 5 * 3);
      for (int bits = 0; bits < kCombinations - 1; ++bits) {
        s.fusion = combination(bits).to_string();
        s.num_threads = 1 + bits % 2;
        s.chunk = bits % 4 == 3 ? 0 : 16;
        const ExactRun run = run_exactly(model, prompts, s);
        EXPECT_EQ(first_difference(run, fused), "")
            << level.name << ", " << activations << ", --fusion " << s.fusion;
        EXPECT_EQ(run.bits.size(), fused.bits.size());
      }
    }
  }
}

// The reference rounds a product with bias and residual sum once, and attention at its end: apart,
// these round more often.
TEST_P(FusionExactness, TheReferenceGivesTheSameBitsWithNormsApart) {
  const std::shared_ptr<const Model> model = load(GetParam());
  const std::vector<int32_t> tokens = make_prompts(model->config().vocab_size)[4];
  testing::RunOptions options{.ops = &ref_ops(), .activations = ActivationType::kInt16};
  const std::vector<float> fused = testing::logits_in_chunks(*model, options, tokens, 7);
  options.fusions = FusionSet::all().without(Fusion::kNormQkv).without(Fusion::kNormMlp);
  EXPECT_EQ(testing::logits_in_chunks(*model, options, tokens, 7), fused);
  options = {.ops = &ref_ops()};
  const std::vector<float> exact = testing::logits_in_chunks(*model, options, tokens, 7);
  options.fusions = FusionSet::none();
  const std::vector<float> apart = testing::logits_in_chunks(*model, options, tokens, 7);
  double largest = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::abs(double{exact[i]} - apart[i]));
  }
  EXPECT_LE(largest, 2e-5);
}

// Scores that do not fit are computed a few tokens at a time, or one.
TEST_P(FusionExactness, PartsOfTheScoresGiveTheSameBits) {
  const std::shared_ptr<const Model> model = load(GetParam());
  const std::vector<int32_t> tokens = make_prompts(model->config().vocab_size)[3];
  for (const IsaLevel& level : cpu_levels()) {
    if (!level.runs_here) continue;
    testing::RunOptions options{.ops = level.ops, .activations = ActivationType::kInt16};
    const std::vector<float> fused = testing::logits_in_chunks(*model, options, tokens, 64);
    options.fusions = FusionSet::none();
    for (int64_t bytes : {0, 20'000}) {
      options.score_bytes = bytes;
      EXPECT_EQ(testing::logits_in_chunks(*model, options, tokens, 64), fused)
          << level.name << ", " << bytes << " bytes of scores";
    }
  }
}

TEST_P(FusionExactness, ATableWithoutAnOpRunsWhatItStandsFor) {
  const std::shared_ptr<const Model> model = load(GetParam());
  const std::vector<int32_t> tokens = make_prompts(model->config().vocab_size)[4];
  OpTable ops = *select_ops("").value();
  testing::RunOptions options{.ops = &ops, .activations = ActivationType::kInt16};
  const std::vector<float> fused = testing::logits_in_chunks(*model, options, tokens, 7);
  ops.norm_quantize = nullptr;
  ops.activate_quantize = nullptr;
  options.fusions = FusionSet::all().supported_by(ops);
  EXPECT_EQ(options.fusions.to_string(), "attention,bias-residual");
  EXPECT_EQ(testing::logits_in_chunks(*model, options, tokens, 7), fused);
  ops.attention_softmax = nullptr;
  options.fusions = FusionSet::none().supported_by(ops);
  EXPECT_EQ(options.fusions.to_string(), "attention");
  EXPECT_EQ(testing::logits_in_chunks(*model, options, tokens, 7), fused);
}

INSTANTIATE_TEST_SUITE_P(Tiny,
                         FusionExactness,
                         ::testing::ValuesIn(tiny_models()),
                         [](const auto& info) {
                           std::string name = info.param.stem().string();
                           std::ranges::replace(name, '-', '_');
                           return name + (info.param.extension() == ".gguf" ? "_gguf" : "");
                         });

// Counts how often the threads of a step meet.
struct CountingPool {
  ThreadPool threads{2};
  int runs = 0;
  Parallel parallel() {
    return {this, 2, [](void* pool, void (*body)(void*, int32_t, int32_t), void* arg) {
              auto* self = static_cast<CountingPool*>(pool);
              ++self->runs;
              self->threads.run(body, arg);
            }};
  }
};

// How often, in a step of `num_tokens` tokens behind 100 others, whose logits nobody wants.
int count_barriers(const Model& model, FusionSet fusions, int num_tokens) {
  testing::RunOptions options{.ops = select_ops("").value(),
                              .activations = ActivationType::kInt16,
                              .num_threads = 2,
                              .fusions = fusions};
  CountingPool pool;
  testing::ModelRun run(model, options, 100 + num_tokens, 128);
  run.step(std::vector<int32_t>(100, 5), std::vector<int32_t>{});
  run.use(pool.parallel());
  run.step(std::vector<int32_t>(static_cast<size_t>(num_tokens), 5), std::vector<int32_t>{});
  return pool.runs;
}

TEST(TinyFusionBarriers, AreAtMostFiveALayerInDecode) {
  for (const fs::path& path : tiny_models()) {
    const std::shared_ptr<const Model> model = load(path);
    const int tables = model->config().architecture == "OPTForCausalLM" ? 2 : 1;  // embeddings
    const int project = model->config().embed_proj_dim != 0 ? 1 : 0;
    EXPECT_LE(count_barriers(*model, FusionSet::all(), 1),
              5 * model->config().num_layers + tables + project)
        << path;
  }
}

TEST(FusionBarriersOfTheDefaultModel, AreFewerWithFusion) {
  const Result<fs::path> path = resolve_model("smollm2");
  if (!path.ok()) GTEST_SKIP() << "smollm2 is not here (scripts/get-model smollm2)";
  const std::shared_ptr<const Model> model = load(*path);
  const int layers = model->config().num_layers;
  for (int tokens : {1, 8, 128}) {
    const int on = count_barriers(*model, FusionSet::all(), tokens);
    const int off = count_barriers(*model, FusionSet::none(), tokens);
    std::printf(
        "%3d tokens: %d barriers with fusion, %d without, in %d layers\n", tokens, on, off, layers);
    EXPECT_LT(on, off);
  }
}

}  // namespace
}  // namespace quire
