// Choosing an attention kernel is pure: these tests need no GPU.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/cuda/quire_attention.h"

namespace {

QuireAttentionArgs dense(int sq, int sk, int heads = 32, int kv_heads = 8, int head_dim = 128) {
  QuireAttentionArgs args = {};
  args.struct_size = sizeof(args);
  args.dtype = QUIRE_BFLOAT16;
  args.arch = 90;
  args.num_sms = 132;
  args.batch = 2;
  args.num_heads = heads;
  args.num_kv_heads = kv_heads;
  args.head_dim = head_dim;
  args.max_seqlen_q = sq;
  args.max_seqlen_k = sk;
  args.window_left = args.window_right = -1;
  args.scale = 0.1f;
  return args;
}

std::string selected(const QuireAttentionArgs& args) {
  QuireAttentionError error = {};
  const QuireAttentionKernel* kernel = quire_attention_select(&args, &error);
  return kernel != nullptr ? kernel->name : std::string("error: ") + error.message;
}

TEST(AttentionSelectTest, PrefillOnHopperTakesTheHopperKernel) {
  EXPECT_EQ(selected(dense(1024, 1024)), "sm90_forward");
}

TEST(AttentionSelectTest, DecodeSplitsKeysWhateverTheBatch) {
  QuireAttentionArgs args = dense(1, 8192);
  for (int batch : {1, 7, 256}) {
    args.batch = batch;
    EXPECT_EQ(selected(args), "sm90_split") << batch;
  }
}

TEST(AttentionSelectTest, MoreRowsThanOneTileDoNotSplit) {
  EXPECT_EQ(selected(dense(16, 8192)), "sm90_split");    // 16 tokens x 4 heads
  EXPECT_EQ(selected(dense(17, 8192)), "sm90_forward");  // 68 rows
}

TEST(AttentionSelectTest, TheBatchInvariantPlanMergesChunksWhereverItSplitsThem) {
  for (int head_dim : {64, 128, 256}) {
    for (int length : {1, 16, 17, 2048}) {
      QuireAttentionArgs args = dense(length, 8192, 32, 8, head_dim);
      args.batch_invariant = 1;
      // d256 has no merging kernel: then every length is split, so that all agree in every bit.
      EXPECT_EQ(selected(args), length <= 16 || head_dim == 256 ? "sm90_split" : "sm90_merged")
          << length;
      args.softcap = 15;
      EXPECT_EQ(selected(args), "sm90_split") << length;
    }
  }
}

TEST(AttentionSelectTest, SweepsAndAblationsAreNeverChosen) {
  for (int head_dim : {64, 128}) {
    for (int arch : {80, 90}) {
      QuireAttentionArgs args = dense(1024, 1024, 8, 8, head_dim);
      args.arch = arch;
      EXPECT_EQ(selected(args), arch == 90 ? "sm90_forward" : "sm80_forward");
    }
  }
}

TEST(RopeWriteTest, RefusalNamesTheValueAndTheLimit) {
  QuireRopeWriteArgs args = {};
  args.struct_size = sizeof(args);
  args.dtype = QUIRE_BFLOAT16;
  args.num_tokens = args.num_heads = args.num_kv_heads = 1;
  args.head_dim = 128;
  args.rotary_dim = 24;
  args.block_size = 16;
  QuireAttentionError error = {};
  EXPECT_EQ(quire_rope_write(&args, &error), QUIRE_UNSUPPORTED);
  EXPECT_NE(std::string(error.message).find("up to head_dim 128, got 24"), std::string::npos);
  args.struct_size = 8;
  EXPECT_EQ(quire_rope_write(&args, &error), QUIRE_INVALID);
}

TEST(AttentionSelectTest, AmpereTakesTheAmpereKernel) {
  QuireAttentionArgs args = dense(1024, 1024);
  args.arch = 80;
  EXPECT_EQ(selected(args), "sm80_forward");
}

TEST(AttentionSelectTest, PagedKeysOnAmpereFallBackToTheReference) {
  QuireAttentionArgs args = dense(1, 1024);
  const int32_t some = 0;
  args.arch = 80;
  args.seqused_k = args.block_table = &some;
  args.block_size = 16;
  EXPECT_EQ(selected(args), "reference");
}

TEST(AttentionSelectTest, OddBlockSizesFallBackToTheReference) {
  QuireAttentionArgs args = dense(1, 1024);
  const int32_t some = 0;
  args.seqused_k = args.block_table = &some;
  args.block_size = 24;
  EXPECT_EQ(selected(args), "reference");
}

TEST(AttentionSelectTest, RefusalNamesEveryReason) {
  const std::string message = selected(dense(100, 16, 8, 8, 260));
  EXPECT_NE(message.find("reference: head_dim over 256"), std::string::npos) << message;
}

TEST(AttentionSelectTest, CallersOfAnotherVersionAreRefused) {
  QuireAttentionArgs args = dense(16, 16);
  args.struct_size -= 8;
  EXPECT_NE(selected(args).find("rebuild the caller"), std::string::npos);
}

TEST(AttentionSelectTest, HeadsMustDivide) {
  EXPECT_NE(selected(dense(16, 16, 8, 3)).find("got 8 and 3"), std::string::npos);
}

TEST(AttentionSelectTest, EveryKernelIsNamedOnceAndTheReferenceIsLast) {
  const int count = quire_attention_num_kernels();
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < i; ++j) {
      EXPECT_STRNE(quire_attention_kernel(i)->name, quire_attention_kernel(j)->name);
    }
  }
  EXPECT_STREQ(quire_attention_kernel(count - 1)->name, "reference");
  EXPECT_EQ(quire_attention_kernel(count), nullptr);
}

TEST(AttentionSelectTest, WorkspaceOfSplitKeysDoesNotGrowWithTheContext) {
  const QuireAttentionArgs small = dense(1, 8192), large = dense(1, 131072);
  const QuireAttentionKernel* kernel = quire_attention_select(&small, nullptr);
  EXPECT_EQ(kernel->workspace_bytes(&small), kernel->workspace_bytes(&large));
}

}  // namespace
