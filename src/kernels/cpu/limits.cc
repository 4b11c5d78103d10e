#include "kernels/cpu/limits.h"

#include <string_view>

namespace quire::cpu {

const LimitKernels& limit_kernels(const char* level) {
  static constexpr LimitKernels kGeneric = {
      generic::limit_read, generic::limit_fma, generic::limit_int8, generic::limit_int16};
#if defined(QUIRE_X86)
  static constexpr LimitKernels kAvx2 = {
      avx2::limit_read, avx2::limit_fma, avx2::limit_int8, avx2::limit_int16};
  static constexpr LimitKernels kAvx512 = {
      avx512::limit_read, avx512::limit_fma, avx512::limit_int8, avx512::limit_int16};
  static constexpr LimitKernels kAvx512Vnni = {
      avx512::limit_read, avx512::limit_fma, avx512_vnni::limit_int8, avx512_vnni::limit_int16};
  const std::string_view name = level;
  if (name == "avx2") return kAvx2;
  if (name == "avx512") return kAvx512;
  if (name == "avx512_vnni") return kAvx512Vnni;
#endif
  return kGeneric;
}

}  // namespace quire::cpu
