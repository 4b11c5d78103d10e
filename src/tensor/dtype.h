// Element and block types of weights and KV caches. Plain data: kernel units of every ISA include
// it.
#pragma once

#include <stdint.h>

namespace quire {

// Formats named Q* store blocks of weights that share scales; their layouts and meaning are the
// headers under kernels/formats/.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kI8,
  kU8,
  kI32,
  kI64,
};

struct DTypeInfo {
  const char* name;  // as users write it: "f16", "q4_0"
  int32_t elems;     // elements in a block; 1 for plain types
  int32_t bytes;     // bytes of a block as it stands in a checkpoint
  bool is_weight;    // a Linear or an embedding may have this type
};

const DTypeInfo& dtype_info(DType type);

}  // namespace quire
