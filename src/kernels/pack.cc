#include "kernels/pack.h"

#include <cstring>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/cpu/gemm_common.h"
#include "kernels/formats/bf16.h"
#include "kernels/formats/f16.h"
#include "kernels/formats/f32.h"
#include "kernels/formats/q4_0.h"
#include "kernels/formats/q4_1.h"
#include "kernels/formats/q4_k.h"
#include "kernels/formats/q5_0.h"
#include "kernels/formats/q5_1.h"
#include "kernels/formats/q5_k.h"
#include "kernels/formats/q6_k.h"
#include "kernels/formats/q8_0.h"

namespace quire {
namespace {

using namespace formats;

// Plain element types: one value at a time.
template <class F>
struct PlainOps {
  static int64_t panel_bytes(int64_t k) {
    return (k + F::kGroup - 1) / F::kGroup * F::kGroup * kPanelRows * F::kBytes;
  }
  static void pack_row(const unsigned char* row, int64_t k, int column, unsigned char* panel) {
    for (int64_t i = 0; i < k; ++i) {
      std::memcpy(panel + F::offset(i, column), row + i * F::kBytes, F::kBytes);
    }
  }
  static void unpack_row(const unsigned char* panel, int64_t k, int column, float* out) {
    for (int64_t i = 0; i < k; ++i) out[i] = F::value(panel + F::offset(i, column));
  }
  static void dequant(const unsigned char* data, int64_t count, float* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = F::value(data + i * F::kBytes);
  }
  static constexpr bool kPadsK = F::kGroup > 1;
};

// Block formats: a block of kElems k becomes one column of one record, or of one superblock.
template <class F>
struct BlockOps {
  using R = typename F::Packed;
  static_assert(F::kElems == 32 * R::kPerHeader);
  static int64_t panel_bytes(int64_t k) { return k / F::kElems * R::kStride; }
  static void pack_row(const unsigned char* row, int64_t k, int column, unsigned char* panel) {
    for (int64_t b = 0; b < k / F::kElems; ++b) {
      F::pack(row + b * F::kBlockBytes, column, panel + b * R::kStride);
    }
  }
  static void unpack_row(const unsigned char* panel, int64_t k, int column, float* out) {
    for (int64_t b = 0; b < k / F::kElems; ++b) {
      F::unpack(panel + b * R::kStride, column, out + b * F::kElems);
    }
  }
  static void dequant(const unsigned char* data, int64_t count, float* out) {
    for (int64_t b = 0; b < count / F::kElems; ++b) {
      F::dequant(data + b * F::kBlockBytes, out + b * F::kElems);
    }
  }
  static constexpr bool kPadsK = false;
};

struct FormatOps {
  int64_t (*panel_bytes)(int64_t k);
  void (*pack_row)(const unsigned char* row, int64_t k, int column, unsigned char* panel);
  void (*unpack_row)(const unsigned char* panel, int64_t k, int column, float* out);
  void (*dequant)(const unsigned char* data, int64_t count, float* out);
  bool pads_k;
};

template <class Ops>
constexpr FormatOps ops_of() {
  return {Ops::panel_bytes, Ops::pack_row, Ops::unpack_row, Ops::dequant, Ops::kPadsK};
}

const FormatOps& format_ops(DType type) {
  static constexpr FormatOps kOps[] = {
      ops_of<PlainOps<F32Format>>(),
      ops_of<PlainOps<F16Format>>(),
      ops_of<PlainOps<BF16Format>>(),
      ops_of<BlockOps<Q4_0Format>>(),
      ops_of<BlockOps<Q4_1Format>>(),
      ops_of<BlockOps<Q5_0Format>>(),
      ops_of<BlockOps<Q5_1Format>>(),
      ops_of<BlockOps<Q8_0Format>>(),
      ops_of<BlockOps<Q4_KFormat>>(),
      ops_of<BlockOps<Q5_KFormat>>(),
      ops_of<BlockOps<Q6_KFormat>>(),
  };
  QUIRE_CHECK_MSG(dtype_info(type).is_weight, "not a weight type");
  return kOps[static_cast<int>(type)];
}

int64_t panels(int64_t n) { return (n + kPanelRows - 1) / kPanelRows; }

}  // namespace

int64_t packed_bytes(DType type, int64_t n, int64_t k) {
  return panels(n) * format_ops(type).panel_bytes(k);
}

int64_t activation_bytes(ActivationType type, int64_t rows, int64_t cols) {
  return rows * cpu::row_layout(type, cols).stride;
}

void pack_panel(DType type,
                int64_t k,
                const unsigned char* rows,
                int64_t row_bytes,
                int64_t num_rows,
                int64_t panel,
                unsigned char* packed) {
  const FormatOps& ops = format_ops(type);
  QUIRE_CHECK(num_rows >= 0 && num_rows <= kPanelRows);
  QUIRE_CHECK(k % dtype_info(type).elems == 0);
  const int64_t bytes = ops.panel_bytes(k);
  unsigned char* out = packed + panel * bytes;
  // A zero scale makes a zero weight, and the zero bytes of plain types are zeros.
  if (num_rows < kPanelRows || ops.pads_k) std::memset(out, 0, bytes);
  for (int64_t c = 0; c < num_rows; ++c) {
    ops.pack_row(rows + c * row_bytes, k, static_cast<int>(c), out);
  }
}

void dequantize_row(const PackedMatrix& w, int64_t row, float* out) {
  const FormatOps& ops = format_ops(w.type);
  const unsigned char* panel = w.data + row / kPanelRows * ops.panel_bytes(w.k);
  ops.unpack_row(panel, w.k, static_cast<int>(row % kPanelRows), out);
}

void dequantize(DType type, const unsigned char* blocks, int64_t count, float* out) {
  format_ops(type).dequant(blocks, count, out);
}

}  // namespace quire
