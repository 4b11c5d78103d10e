// Scales and mins of a group, and how its exact integer sums enter the f32 accumulators; on any
// vector width. Included inside an anonymous namespace after vec_*.inl and gemm_rows.inl.
//
// With groups increasing, in every kernel of a level:  acc = fma(float(sum) [* group scale of the
// row], scale, acc), for each half of the group if scales are per 16 k, and then, with mins,
// acc = fma(fsum, min, acc).

// Scale (of half h of the group) and min of the columns of vector v.
template <class R>
QUIRE_INLINE VF record_scale(const RecordAt<R>& at, int v, int h) {
  const unsigned char* scales = at.record + R::kCodeBytes;
  if constexpr (!R::kSuper) return load_f16(scales + v * kLanes * 2);
  const VF d = load_f16(at.header + v * kLanes * 2);
  if constexpr (R::kPer16) return mul_f(d, load_i8(scales + 32 * h + v * kLanes));
  return mul_f(d, load_u8(scales + v * kLanes));
}
template <class R>
QUIRE_INLINE VF record_min(const RecordAt<R>& at, int v) {
  const unsigned char* scales = at.record + R::kCodeBytes;
  if constexpr (!R::kSuper) return load_f16(scales + 64 + v * kLanes * 2);
  const VF dmin = load_f16(at.header + 64 + v * kLanes * 2);
  return negate_f(mul_f(dmin, load_u8(scales + 32 + v * kLanes)));
}

// Scales of an unpacked K block; the halves of a group are used only if scales are per 16 k.
struct BlockScales {
  float scale[kBlockGroups * 64];  // [group][half][32 columns]
  float min[kBlockGroups * 32];    // [group][32 columns]
};

template <class R>
void unpack_scales(const RecordAt<R>& at, int64_t g, BlockScales* out) {
  float* scale = out->scale + g * 64;
  float* min = out->min + g * 32;
  for (int v = 0; v < kVecs; ++v, scale += kLanes, min += kLanes) {
    store_f(scale, record_scale<R>(at, v, 0));
    if constexpr (R::kPer16) store_f(scale + 32, record_scale<R>(at, v, 1));
    if constexpr (R::kHasMins) store_f(min, record_min<R>(at, v));
  }
}

// How a kernel treats a group.
template <bool mins, bool per16, bool int8>
struct GroupKind {
  static constexpr bool kMins = mins, kPer16 = per16, kInt8 = int8;
};

// One float per row, `stride` floats apart.
struct PerRow {
  const float* data;
  int64_t stride;
};

// acc[M][32] += sums * scales, for two vectors of columns; `acc` points at the first.
template <int M, bool kScaled>
QUIRE_INLINE void add_sums(const VI (*sum)[2], VF s0, VF s1, PerRow group_scale, float* acc) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    VF t0 = to_float(sum[r][0]), t1 = to_float(sum[r][1]);
    if constexpr (kScaled) {
      const VF xs = all_f(group_scale.data[r * group_scale.stride]);
      t0 = mul_f(t0, xs);
      t1 = mul_f(t1, xs);
    }
    float* a = acc + 32 * r;
    store_f(a, fma_f(t0, s0, load_f(a)));
    store_f(a + kLanes, fma_f(t1, s1, load_f(a + kLanes)));
  }
}

template <int M>
QUIRE_INLINE void add_mins(VF m0, VF m1, PerRow fsum, float* acc) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    const VF f = all_f(fsum.data[r * fsum.stride]);
    float* a = acc + 32 * r;
    store_f(a, fma_f(f, m0, load_f(a)));
    store_f(a + kLanes, fma_f(f, m1, load_f(a + kLanes)));
  }
}

// sum[r] = -zero * (sum of the row's codes over the group, or over its half h).
template <class R, int M>
QUIRE_INLINE void start_sums(const Rows& rows, int64_t g, int h, VI (*sum)[2]) {
#pragma GCC unroll 16
  for (int r = 0; r < M; ++r) {
    if constexpr (R::kZero == 0) {
      sum[r][0] = zero_i();
    } else {
      const int32_t total = R::kPer16 ? rows.half_sum(r)[2 * g + h] : rows.sum(r)[g];
      sum[r][0] = all_32(-R::kZero * total);
    }
    sum[r][1] = sum[r][0];
  }
}
