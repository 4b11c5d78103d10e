// Checkpoint order -> packed panels. One packed layout for all ISA levels, so that a packed file or
// a packed matrix never depends on the machine.
//
// A panel holds 32 rows of W (output columns). Inside it K runs in groups of 32 (f32, f16, bf16:
// see below):
//   f32                 [k][32] f32
//   f16, bf16           [k/2][32][2]: the order of vdpbf16ps and AMX B tiles
//   quantised formats   one contiguous record per 32 k: weights as unsigned integers in dword
//   order, then the
//                       record's scales and mins, so that decode reads one linear stream
// The record of each format is documented in kernels/formats/<format>.h next to the scalar dequant
// that defines the format.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "kernels/ops.h"

namespace quire {

inline constexpr int64_t kPanelRows = 32;

// Packs rows [panel*32, panel*32 + num_rows) of W [n, k], given in checkpoint order (num_rows <= 32
// rows, each row_bytes apart), to their place in `packed` (packed_bytes(type, n, k) bytes). Rows
// beyond num_rows become zero weights. Panels may be packed in any order, by any thread.
void pack_panel(DType type,
                int64_t k,
                const unsigned char* rows,
                int64_t row_bytes,
                int64_t num_rows,
                int64_t panel,
                unsigned char* packed);

// One row of the packed matrix as f32 [k], bit-equal to the format's dequant of the checkpoint row.
void dequantize_row(const PackedMatrix& w, int64_t row, float* out);

// `count` elements (a multiple of the block) in checkpoint order as f32: the format's definition.
void dequantize(DType type, const unsigned char* blocks, int64_t count, float* out);

}  // namespace quire
