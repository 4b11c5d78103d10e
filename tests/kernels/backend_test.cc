#include "kernels/backend.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace quire {
namespace {

TEST(Backend, ListsTheLevelsSlowestFirstAndSaysWhyOneDoesNotRun) {
  ASSERT_EQ(cpu_levels().size(), 4U);
  EXPECT_STREQ(cpu_levels()[0].name, "generic");
  EXPECT_TRUE(cpu_levels()[0].runs_here);
  for (const IsaLevel& level : cpu_levels()) {
    EXPECT_EQ(level.runs_here, level.why_not.empty());
    EXPECT_TRUE(!level.runs_here || level.ops != nullptr);
  }
}

TEST(Backend, HasNoNullOpInAnyTable) {
  std::vector<const OpTable*> tables = {&ref_ops()};
  for (const IsaLevel& level : cpu_levels()) {
    if (level.ops != nullptr) tables.push_back(level.ops);
  }
  for (const OpTable* table : tables) {
#define QUIRE_EXPECT_OP(op, Args) EXPECT_NE(table->op, nullptr) << table->name << " " << #op;
    QUIRE_OPS(QUIRE_EXPECT_OP)
#undef QUIRE_EXPECT_OP
  }
}

TEST(Backend, ChoosesTheBestLevelByDefaultAndObeysTheEnvironment) {
  unsetenv("QUIRE_ISA");
  const OpTable* best = nullptr;
  for (const IsaLevel& level : cpu_levels()) best = level.runs_here ? level.ops : best;
  EXPECT_EQ(select_ops("").value(), best);
  EXPECT_STREQ(select_ops("generic").value()->name, "generic");
  EXPECT_EQ(select_ops("ref").value(), &ref_ops());
  setenv("QUIRE_ISA", "generic", 1);
  EXPECT_STREQ(select_ops("").value()->name, "generic");
  EXPECT_EQ(select_ops("ref").value(), &ref_ops());
  unsetenv("QUIRE_ISA");
}

TEST(Backend, NamesTheLevelsWhenOneIsUnknown) {
  setenv("QUIRE_ISA", "sse9", 1);
  const auto result = select_ops("");
  unsetenv("QUIRE_ISA");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(result.status().message(),
            "unknown ISA level \"sse9\" (from QUIRE_ISA); there are generic, avx2, avx512, "
            "avx512_vnni, ref. Choose one of them or leave it unset");
}

TEST(Backend, SaysWhatIsMissingWhenALevelDoesNotRunHere) {
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) continue;
    const auto result = select_ops(level.name);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.status().code(), StatusCode::kUnsupported);
    EXPECT_NE(result.status().message().find(level.why_not), std::string::npos);
    EXPECT_NE(result.status().message().find("generic"), std::string::npos);
  }
}

TEST(Backend, CountsTheBytesOfAKvBlock) {
  EXPECT_EQ(kv_block_bytes({DType::kF16, 16, 3, 64}), 3 * 2 * 64 * 16 * 2);
  EXPECT_EQ(kv_block_bytes({DType::kF32, 1, 8, 128}), 8 * 2 * 128 * 4);
}

}  // namespace
}  // namespace quire
