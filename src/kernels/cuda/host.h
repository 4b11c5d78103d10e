// Host helpers shared by the kernels' launchers: error reporting and tensor maps.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/quire_attention.h"

namespace quire::cuda {

// Fills *error (may be null) and returns code.
int fail(QuireAttentionError* error, int code, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

// QUIRE_OK, or QUIRE_CUDA_ERROR with what failed and the runtime's own words.
int check_cuda(cudaError_t status, const char* what, QuireAttentionError* error);

// Raises the kernel's limit of dynamic shared memory where needed and launches it. `early`: the
// kernel may start while the one before it in the stream still runs (programmatic dependent launch,
// sm_90); it must execute griddepcontrol.wait before it touches memory.
int launch(const void* kernel,
           dim3 grid,
           int threads,
           int smem_bytes,
           void** arguments,
           const QuireAttentionArgs& args,
           QuireAttentionError* error,
           bool early = false);

struct TensorMapSpec {
  int rank;
  const void* base;
  uint64_t sizes[5];   // elements, innermost first
  int64_t strides[5];  // elements; strides[0] is 1
  uint32_t box[5];
  // Fetch 256 bytes into L2 for every 128 that are asked for. 1 % where many CTAs read the same
  // rows; costs 7 % of the bandwidth where every row is read once.
  bool promote_256 = true;
};

// A map of 16-bit elements with the 128-byte swizzle, zeros outside.
int encode_tensor_map(CUtensorMap* map,
                      const TensorMapSpec& spec,
                      const char* name,
                      QuireAttentionError* error);

inline int64_t align_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
inline int divide_up(int a, int b) { return (a + b - 1) / b; }

}  // namespace quire::cuda
