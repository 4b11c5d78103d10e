// The op tables of the CPU levels. Compiled without any level's flags.
#include "kernels/cpu/tables.h"

#include "kernels/cpu/isa.h"

namespace quire::cpu {
namespace {

#define QUIRE_MATRIX_MEMBER(op, Args) .op = QUIRE_MATRIX_LEVEL::op,
#define QUIRE_OTHER_MEMBER(op, Args) .op = QUIRE_OTHER_LEVEL::op,

#define QUIRE_MATRIX_LEVEL generic
#define QUIRE_OTHER_LEVEL generic
constexpr OpTable kGeneric = {
    .name = "generic", QUIRE_MATRIX_OPS(QUIRE_MATRIX_MEMBER) QUIRE_OTHER_OPS(QUIRE_OTHER_MEMBER)};
#undef QUIRE_MATRIX_LEVEL
#undef QUIRE_OTHER_LEVEL

#if defined(QUIRE_X86)
#define QUIRE_MATRIX_LEVEL avx2
#define QUIRE_OTHER_LEVEL avx2
constexpr OpTable kAvx2 = {
    .name = "avx2", QUIRE_MATRIX_OPS(QUIRE_MATRIX_MEMBER) QUIRE_OTHER_OPS(QUIRE_OTHER_MEMBER)};
#undef QUIRE_MATRIX_LEVEL
#undef QUIRE_OTHER_LEVEL

#define QUIRE_MATRIX_LEVEL avx512
#define QUIRE_OTHER_LEVEL avx512
constexpr OpTable kAvx512 = {
    .name = "avx512", QUIRE_MATRIX_OPS(QUIRE_MATRIX_MEMBER) QUIRE_OTHER_OPS(QUIRE_OTHER_MEMBER)};
#undef QUIRE_MATRIX_LEVEL

#define QUIRE_MATRIX_LEVEL avx512_vnni
constexpr OpTable kAvx512Vnni = {.name = "avx512_vnni",
                                 QUIRE_MATRIX_OPS(QUIRE_MATRIX_MEMBER)
                                     QUIRE_OTHER_OPS(QUIRE_OTHER_MEMBER)};
#undef QUIRE_MATRIX_LEVEL
#undef QUIRE_OTHER_LEVEL
#endif

}  // namespace

const OpTable* generic_table() { return &kGeneric; }
#if defined(QUIRE_X86)
const OpTable* avx2_table() { return &kAvx2; }
const OpTable* avx512_table() { return &kAvx512; }
const OpTable* avx512_vnni_table() { return &kAvx512Vnni; }
#else
const OpTable* avx2_table() { return nullptr; }
const OpTable* avx512_table() { return nullptr; }
const OpTable* avx512_vnni_table() { return nullptr; }
#endif

}  // namespace quire::cpu
