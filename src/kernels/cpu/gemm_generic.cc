// Matrix ops in plain C++: any CPU, and the easiest to read. No fused multiply-add: a group's sum
// is multiplied by its scale and then added. Each K block of a panel is unpacked to scratch, then
// multiplied by every row. Compute bound; the compiler vectorises the loops over 32 columns.
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/gemm_common.h"
#include "kernels/cpu/isa.h"
#include "kernels/formats/records.h"
#include "tensor/half.h"

namespace quire::cpu::generic {
namespace {

#include "kernels/cpu/gemm_rows.inl"

constexpr int kSmallRows = 0;  // the unpacked path serves every M

void accumulate_small(DType, const unsigned char*, const Rows&, unsigned char*, float*) {}

// One record, unpacked: weight minus zero point, and scales for each half of the group.
struct UnpackedGroup {
  int16_t w[32][32];  // [k][column]
  float scale[2][32];
  float min[32];
};

uint16_t load_u16(const unsigned char* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
float load_half(const unsigned char* p) { return f16_to_f32(load_u16(p)); }

template <class R>
int code_at(const unsigned char* record, int k, int c) {
  const int s = k / 4, j = k % 4;
  if constexpr (R::kBits == 8) return record[128 * s + 4 * c + j];
  const int nibbles = record[128 * (s % 4) + 4 * c + j];
  int q = s < 4 ? nibbles & 15 : nibbles >> 4;
  if constexpr (R::kBits == 5) q |= ((record[512 + 4 * c + j] >> s) & 1) << 4;
  if constexpr (R::kBits == 6) {
    q |= ((record[512 + 128 * (s / 4) + 4 * c + j] >> (2 * (s % 4))) & 3) << 4;
  }
  return q;
}

template <class R>
void unpack_scales(const RecordAt<R>& at, UnpackedGroup* out) {
  const unsigned char* scales = at.record + R::kCodeBytes;
  for (int c = 0; c < 32; ++c) {
    if constexpr (R::kScales == formats::Scales::kHalf || R::kScales == formats::Scales::kHalfMin) {
      out->scale[0][c] = out->scale[1][c] = load_half(scales + 2 * c);
      if constexpr (R::kHasMins) out->min[c] = load_half(scales + 64 + 2 * c);
    } else if constexpr (R::kScales == formats::Scales::kSuperMin) {
      out->scale[0][c] = out->scale[1][c] =
          load_half(at.header + 2 * c) * static_cast<float>(scales[c]);
      out->min[c] = -(load_half(at.header + 64 + 2 * c) * static_cast<float>(scales[32 + c]));
    } else {
      const float d = load_half(at.header + 2 * c);
      for (int h = 0; h < 2; ++h) {
        out->scale[h][c] = d * static_cast<float>(static_cast<int8_t>(scales[32 * h + c]));
      }
    }
  }
}

template <class R>
void unpack_group(const unsigned char* panel, int64_t g, UnpackedGroup* out) {
  const RecordAt<R> at = record_at<R>(panel, g);
  for (int k = 0; k < 32; ++k) {
    for (int c = 0; c < 32; ++c) {
      out->w[k][c] = static_cast<int16_t>(code_at<R>(at.record, k, c) - R::kZero);
    }
  }
  unpack_scales<R>(at, out);
}

// acc += group g of one row.
template <class R>
void add_group(const UnpackedGroup& group, const Rows& rows, int64_t row, int64_t g, float* acc) {
  constexpr int kHalves = R::kPer16 ? 2 : 1;
  const int16_t* x = reinterpret_cast<const int16_t*>(rows.codes(row) + g * 64);
  for (int h = 0; h < kHalves; ++h) {
    int32_t sum[32] = {};
    for (int k = h * 16; k < (h + 1) * 32 / kHalves; ++k) {
      for (int c = 0; c < 32; ++c) sum[c] += static_cast<int32_t>(x[k]) * group.w[k][c];
    }
    float term[32];
    for (int c = 0; c < 32; ++c) term[c] = static_cast<float>(sum[c]);
    if (rows.type == ActivationType::kInt8) {
      const float scale = rows.scale(row)[g];
      for (int c = 0; c < 32; ++c) term[c] *= scale;
    }
    for (int c = 0; c < 32; ++c) acc[c] += term[c] * group.scale[h][c];
  }
  if constexpr (R::kHasMins) {
    const float fsum = rows.fsum(row)[g];
    for (int c = 0; c < 32; ++c) acc[c] += fsum * group.min[c];
  }
}

template <class R>
void integer_rows(const unsigned char* panel,
                  const Rows& rows,
                  int64_t row0,
                  int64_t m,
                  unsigned char* scratch,
                  float* acc) {
  UnpackedGroup* groups = reinterpret_cast<UnpackedGroup*>(scratch);
  for (int64_t g0 = 0; g0 < rows.layout.groups; g0 += kBlockGroups) {
    const int64_t rest = rows.layout.groups - g0;
    const int64_t n = rest < kBlockGroups ? rest : kBlockGroups;
    for (int64_t g = 0; g < n; ++g) unpack_group<R>(panel, g0 + g, groups + g);
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t g = mutant("exactness_k_order_by_batch") && m > 8 ? n - 1 - i : i;
        add_group<R>(groups[g], rows, row0 + r, g0 + g, acc + 32 * r);
      }
    }
  }
}

// One group of 32 k as f32 [32 k][32 columns]: scale * (q - zero), then + min, as in dequant.
template <class R>
void dequantize_group(const unsigned char* panel, int64_t g, float* out) {
  UnpackedGroup group;
  unpack_group<R>(panel, g, &group);
  for (int k = 0; k < 32; ++k) {
    for (int c = 0; c < 32; ++c) {
      float w = group.scale[k / 16][c] * static_cast<float>(group.w[k][c]);
      if constexpr (R::kHasMins) w += group.min[c];
      out[32 * k + c] = w;
    }
  }
}

// k0 <= k < k0 + n of a panel as f32 [n][32].
void dequantize_k(DType type, const unsigned char* panel, int64_t k0, int64_t n, float* out) {
  if (is_float(type)) {
    for (int64_t k = k0; k < k0 + n; ++k) {
      for (int64_t c = 0; c < 32; ++c) {
        const unsigned char* pair = panel + (k / 2 * 64 + 2 * c + k % 2) * 2;
        float w;
        if (type == DType::kF32) {
          __builtin_memcpy(&w, panel + (k * 32 + c) * 4, 4);
        } else {
          w = type == DType::kF16 ? load_half(pair) : bf16_to_f32(load_u16(pair));
        }
        out[(k - k0) * 32 + c] = w;
      }
    }
    return;
  }
  for (int64_t g = k0 / 32; g < (k0 + n) / 32; ++g, out += 32 * 32) {
#define QUIRE_DEQUANTIZE(R) dequantize_group<R>(panel, g, out)
    QUIRE_FOR_RECORD(type, QUIRE_DEQUANTIZE)
#undef QUIRE_DEQUANTIZE
  }
}

void float_rows(DType type,
                const unsigned char* panel,
                const Rows& rows,
                int64_t row0,
                int64_t m,
                unsigned char* scratch,
                float* acc) {
  float* w = reinterpret_cast<float*>(scratch);
  for (int64_t k0 = 0; k0 < rows.cols; k0 += kBlockK) {
    const int64_t n = rows.cols - k0 < kBlockK ? rows.cols - k0 : kBlockK;
    dequantize_k(type, panel, k0, n, w);
    for (int64_t r = 0; r < m; ++r) {
      const float* x = rows.floats(row0 + r) + k0;
      float* a = acc + 32 * r;
      for (int64_t k = 0; k < n; ++k) {
        for (int c = 0; c < 32; ++c) a[c] += x[k] * w[32 * k + c];
      }
    }
  }
}

void accumulate_rows(DType type,
                     const unsigned char* panel,
                     const Rows& rows,
                     int64_t row0,
                     int64_t m,
                     unsigned char* scratch,
                     float* acc) {
  for (int64_t i = 0; i < m * 32; ++i) acc[i] = 0.0f;
  if (rows.type == ActivationType::kF32) {
    float_rows(type, panel, rows, row0, m, scratch, acc);
    return;
  }
#define QUIRE_INTEGER_ROWS(R) integer_rows<R>(panel, rows, row0, m, scratch, acc)
  QUIRE_FOR_RECORD(type, QUIRE_INTEGER_ROWS)
#undef QUIRE_INTEGER_ROWS
}

#include "kernels/cpu/gemm_driver.inl"

}  // namespace

void linear(const ExecContext& exec, const LinearArgs& args) { run_linear(exec, args); }
void embedding(const ExecContext& exec, const EmbeddingArgs& args) { run_embedding(exec, args); }

}  // namespace quire::cpu::generic
