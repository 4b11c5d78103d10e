#include "tensor/dtype.h"

namespace quire {

const DTypeInfo& dtype_info(DType type) {
  static constexpr DTypeInfo kInfo[] = {
      {"f32", 1, 4, true},
      {"f16", 1, 2, true},
      {"bf16", 1, 2, true},
      {"q4_0", 32, 18, true},
      {"q4_1", 32, 20, true},
      {"q5_0", 32, 22, true},
      {"q5_1", 32, 24, true},
      {"q8_0", 32, 34, true},
      {"q4_k", 256, 144, true},
      {"q5_k", 256, 176, true},
      {"q6_k", 256, 210, true},
      {"i8", 1, 1, false},
      {"u8", 1, 1, false},
      {"i32", 1, 4, false},
      {"i64", 1, 8, false},
  };
  return kInfo[static_cast<int>(type)];
}

}  // namespace quire
