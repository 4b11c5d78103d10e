#include "kernels/cuda/host.h"

#include <cstdarg>
#include <cstdio>

namespace quire::cuda {

int fail(QuireAttentionError* error, int code, const char* format, ...) {
  if (error != nullptr) {
    error->code = code;
    va_list list;
    va_start(list, format);
    std::vsnprintf(error->message, sizeof(error->message), format, list);
    va_end(list);
  }
  return code;
}

int check_cuda(cudaError_t status, const char* what, QuireAttentionError* error) {
  if (status == cudaSuccess) return QUIRE_OK;
  return fail(error,
              QUIRE_CUDA_ERROR,
              "%s: %s (%s)",
              what,
              cudaGetErrorString(status),
              cudaGetErrorName(status));
}

int launch(const void* kernel,
           dim3 grid,
           int threads,
           int smem_bytes,
           void** arguments,
           const QuireAttentionArgs& args,
           QuireAttentionError* error,
           bool early) {
  if (smem_bytes > 48 * 1024) {
    const int code = check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, smem_bytes),
        "raising the shared memory limit",
        error);
    if (code != QUIRE_OK) return code;
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = smem_bytes;
  config.stream = static_cast<cudaStream_t>(args.stream);
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  return check_cuda(
      cudaLaunchKernelExC(&config, kernel, arguments), "launching an attention kernel", error);
}

int encode_tensor_map(CUtensorMap* map,
                      const TensorMapSpec& spec,
                      const char* name,
                      QuireAttentionError* error) {
  // The driver's function through the runtime: the library then needs no link to libcuda.
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  const int code =
      check_cuda(cudaGetDriverEntryPointByVersion(
                     "cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found),
                 "looking up cuTensorMapEncodeTiled",
                 error);
  if (code != QUIRE_OK) return code;
  if (entry == nullptr) {
    return fail(
        error, QUIRE_CUDA_ERROR, "the driver has no cuTensorMapEncodeTiled: CUDA 12 needed");
  }
  cuuint64_t sizes[5], strides[4];
  cuuint32_t box[5], unit[5];
  for (int i = 0; i < spec.rank; ++i) {
    sizes[i] = spec.sizes[i] == 0 ? 1 : spec.sizes[i];
    box[i] = spec.box[i];
    unit[i] = 1;
    // The stride of a dimension of one element is never used, but must still be a multiple of 16
    // bytes.
    if (i > 0) strides[i - 1] = sizes[i] == 1 ? 16 : static_cast<cuuint64_t>(spec.strides[i]) * 2;
  }
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
      map,
      CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
      spec.rank,
      const_cast<void*>(spec.base),
      sizes,
      strides,
      box,
      unit,
      CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B,
      spec.promote_256 ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return fail(error,
                QUIRE_INVALID,
                "no tensor map for %s (error %d): pointers must be 16-byte aligned and strides "
                "multiples of 8 elements, got pointer %p, token stride %lld",
                name,
                static_cast<int>(result),
                spec.base,
                static_cast<long long>(spec.strides[spec.rank - 3]));
  }
  return QUIRE_OK;
}

}  // namespace quire::cuda
