// The backends of this program and the one to use.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "kernels/ops.h"

namespace quire {

struct IsaLevel {
  const char* name;     // as in QUIRE_ISA: "generic", "avx2", "avx512", "avx512_vnni"
  const OpTable* ops;   // null: this build does not contain it
  bool runs_here;       // the CPU and the operating system support it
  std::string why_not;  // the missing feature, when it does not run here
};

// All CPU levels of this build, slowest first.
std::span<const IsaLevel> cpu_levels();
// Slow, obvious, double-accumulating version of every op: the definition the others are tested
// against.
const OpTable& ref_ops();
// `name`: "" = QUIRE_ISA if set, else the best level that runs here; "ref" = the reference
// backend.
Result<const OpTable*> select_ops(std::string_view name);

// Bytes of packed weights, and of rows prepared for `linear` (an upper bound over all op tables).
int64_t packed_bytes(DType type, int64_t n, int64_t k);
int64_t activation_bytes(ActivationType type, int64_t rows, int64_t cols);
// Bytes of one KV block of one layer.
int64_t kv_block_bytes(const KvLayout& layout);

}  // namespace quire
