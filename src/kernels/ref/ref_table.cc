#include "kernels/backend.h"
#include "kernels/ref/ref.h"

namespace quire {

const OpTable& ref_ops() {
#define QUIRE_REF_MEMBER(op, Args) .op = ref::op,
  static constexpr OpTable table = {.name = "ref", QUIRE_OPS(QUIRE_REF_MEMBER)};
#undef QUIRE_REF_MEMBER
  return table;
}

}  // namespace quire
