// Which activation type each matrix of a model is multiplied with.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/loader.h"
#include "model/model_run.h"

namespace quire {
namespace {

namespace fs = std::filesystem;

struct Product {
  DType weights;
  ActivationType activations;
  int64_t outputs;
};
std::vector<Product>* g_products = nullptr;  // of the test that runs

void record_linear(const ExecContext& exec, const LinearArgs& args) {
  for (int32_t i = 0; i < args.num_segments; ++i) {
    g_products->push_back({args.segments[i].type, args.x.type, args.segments[i].n});
  }
  ref_ops().linear(exec, args);
}

std::vector<Product> products_of(const std::string& name, ActivationType activations) {
  const fs::path path = fs::path(QUIRE_TESTDATA) / "golden" / "tiny_gguf" / name;
  Result<LoadedModel> loaded = load_model(path, LoadOptions{.num_threads = 1});
  QUIRE_CHECK_MSG(loaded.ok(), loaded.status().message().c_str());
  OpTable ops = ref_ops();
  ops.linear = record_linear;
  std::vector<Product> products;
  g_products = &products;
  const std::vector<int32_t> tokens = {5, 17, 80};
  testing::logits_in_chunks(
      *loaded.value().model, {.ops = &ops, .activations = activations}, tokens, 3);
  g_products = nullptr;
  return products;
}

// One int8 plane into the output head alone costs a quarter of the mode's whole KL divergence.
TEST(ActivationTypesTest, TheOutputHeadKeepsInt16InInt8Mode) {
  for (const char* name : {"llama_q4_1.gguf", "llama_k_quants.gguf", "qwen3_q4_0.gguf"}) {
    const std::vector<Product> products = products_of(name, ActivationType::kInt8);
    ASSERT_GT(products.size(), 2u);
    for (size_t i = 0; i + 1 < products.size(); ++i) {
      EXPECT_EQ(products[i].activations, ActivationType::kInt8) << name << ", product " << i;
    }
    EXPECT_EQ(products.back().outputs, 272) << name;  // the vocabulary: this is the head
    EXPECT_EQ(products.back().activations, ActivationType::kInt16) << name;
  }
}

TEST(ActivationTypesTest, OtherModesAreTheSameEverywhere) {
  for (ActivationType type : {ActivationType::kF32, ActivationType::kInt16}) {
    for (const Product& product : products_of("llama_q4_1.gguf", type)) {
      EXPECT_EQ(product.activations, type);
    }
  }
  for (const Product& product : products_of("llama_bf16.gguf", ActivationType::kInt8)) {
    EXPECT_EQ(product.activations, ActivationType::kF32);  // plain weights
  }
}

}  // namespace
}  // namespace quire
