// libquire_cuda.so is loaded at run time, on machines without an NVIDIA driver too: it must load,
// and say what is missing once it is asked to run something.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/cuda/quire_attention.h"

namespace {

TEST(LoadTest, EverySymbolResolvesWithoutADriver) {
  void* library = dlopen(QUIRE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto version = reinterpret_cast<int32_t (*)()>(dlsym(library, "quire_attention_version"));
  ASSERT_NE(version, nullptr) << dlerror();
  EXPECT_EQ(version(), QUIRE_ATTENTION_VERSION);
}

bool has_driver() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return driver != nullptr;
}

TEST(LoadTest, RunningWithoutADriverIsAnErrorThatNamesIt) {
  if (has_driver()) GTEST_SKIP() << "this machine has an NVIDIA driver";
  std::vector<uint16_t> rows(64 * 64);
  for (int arch : {80, 90}) {
    QuireAttentionArgs args = {};
    args.struct_size = sizeof(args);
    args.dtype = QUIRE_BFLOAT16;
    args.arch = arch;
    args.num_sms = 132;
    args.batch = args.num_heads = args.num_kv_heads = 1;
    args.head_dim = args.max_seqlen_q = args.max_seqlen_k = 64;
    args.window_left = args.window_right = -1;
    args.q = args.k = args.v = rows.data();
    args.o = rows.data();
    args.q_stride_token = args.k_stride_token = args.v_stride_token = args.o_stride_token = 64;
    const QuireAttentionKernel* kernel = quire_attention_select(&args, nullptr);
    ASSERT_NE(kernel, nullptr);
    std::vector<char> workspace(kernel->workspace_bytes(&args));
    args.workspace = workspace.data();
    args.workspace_bytes = static_cast<int64_t>(workspace.size());
    QuireAttentionError error = {};
    EXPECT_EQ(quire_attention_forward(&args, &error), QUIRE_CUDA_ERROR);
    EXPECT_NE(std::string(error.message).find("driver"), std::string::npos) << error.message;
  }
}

}  // namespace
