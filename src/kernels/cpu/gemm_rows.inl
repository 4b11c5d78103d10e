// What the matrix products of every level read: prepared rows, records of packed panels. Included
// inside an anonymous namespace.

#include "kernels/cpu/rows.inl"

// Calls f.template operator()<Record>() for a quantised type.
#define QUIRE_FOR_RECORD(type, CALL) \
  switch (type) {                    \
    case DType::kQ4_0:               \
      CALL(formats::Q4_0);           \
      break;                         \
    case DType::kQ4_1:               \
      CALL(formats::Q4_1);           \
      break;                         \
    case DType::kQ5_0:               \
      CALL(formats::Q5_0);           \
      break;                         \
    case DType::kQ5_1:               \
      CALL(formats::Q5_1);           \
      break;                         \
    case DType::kQ8_0:               \
      CALL(formats::Q8_0);           \
      break;                         \
    case DType::kQ4_K:               \
      CALL(formats::Q4_K);           \
      break;                         \
    case DType::kQ5_K:               \
      CALL(formats::Q5_K);           \
      break;                         \
    case DType::kQ6_K:               \
      CALL(formats::Q6_K);           \
      break;                         \
    default:                         \
      __builtin_trap();              \
  }

bool is_float(DType type) { return type <= DType::kBF16; }

int64_t panel_bytes(DType type, int64_t k) {
  if (type == DType::kF32) return k * 128;
  if (is_float(type)) return (k + 1) / 2 * 128;
  int64_t bytes = 0;
#define QUIRE_PANEL_BYTES(R) bytes = k / (32 * R::kPerHeader) * R::kStride
  QUIRE_FOR_RECORD(type, QUIRE_PANEL_BYTES)
#undef QUIRE_PANEL_BYTES
  return bytes;
}

// Record g of a panel, and the header of its superblock (the record itself if there is none).
template <class R>
struct RecordAt {
  const unsigned char* header;
  const unsigned char* record;
};

template <class R>
RecordAt<R> record_at(const unsigned char* panel, int64_t g) {
  if constexpr (!R::kSuper) {
    return {panel + g * R::kStride, panel + g * R::kStride};
  } else {
    const unsigned char* header = panel + g / R::kPerHeader * R::kStride;
    return {header, header + R::kHeader + g % R::kPerHeader * R::kBytes};
  }
}

// K blocks: groups of 32 unpacked at a time.
constexpr int kBlockGroups = 8;
constexpr int kBlockK = kBlockGroups * 32;
