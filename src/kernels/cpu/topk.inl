// top_k: one pass over the row against the smallest of the k best so far, which live in a heap in
// the output itself. A later equal value never displaces an earlier one, so ties go to the lower
// column. On logits in no special order about k ln(V / k) values enter the heap.

constexpr float kMinusInfinity = -__builtin_inff();

// The heap's order: a is worse than b.
QUIRE_INLINE bool worse(float a, int32_t a_id, float b, int32_t b_id) {
  return a < b || (a == b && a_id > b_id);
}

// Puts (value, id) at `hole` or below: values[0] is the worst of the n.
inline void sift_down(
    float* values, int32_t* ids, int32_t n, int32_t hole, float value, int32_t id) {
  for (;;) {
    int32_t child = 2 * hole + 1;
    if (child >= n) break;
    if (child + 1 < n && worse(values[child + 1], ids[child + 1], values[child], ids[child])) {
      ++child;
    }
    if (!worse(values[child], ids[child], value, id)) break;
    values[hole] = values[child];
    ids[hole] = ids[child];
    hole = child;
  }
  values[hole] = value;
  ids[hole] = id;
}

QUIRE_INLINE float nan_as_lowest(float x) { return x != x ? kMinusInfinity : x; }

inline void top_k_row(const float* x, int64_t n, int32_t k, int32_t* ids, float* values) {
  for (int32_t i = 0; i < k; ++i) {
    values[i] = nan_as_lowest(x[i]);
    ids[i] = i;
  }
  for (int32_t i = k / 2 - 1; i >= 0; --i) sift_down(values, ids, k, i, values[i], ids[i]);
  int64_t i = k;
  while (i < n) {
    const int lanes = n - i < kWidth ? static_cast<int>(n - i) : kWidth;
    const F32 v = lanes == kWidth ? load(x + i) : load_n(x + i, lanes);
    uint32_t better = greater(v, set1(values[0])) & ((1U << lanes) - 1);  // never for NaN
    for (; better != 0; better &= better - 1) {
      const int64_t column = i + __builtin_ctz(better);
      if (x[column] > values[0]) {
        sift_down(values, ids, k, 0, x[column], static_cast<int32_t>(column));
      }
    }
    i += lanes;
  }
  for (int32_t last = k - 1; last > 0; --last) {  // the worst goes to the end
    const float value = values[last];
    const int32_t id = ids[last];
    values[last] = values[0];
    ids[last] = ids[0];
    sift_down(values, ids, last, 0, value, id);
  }
}

inline void top_k_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const TopKArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    top_k_row(a.x.data + t * a.x.stride, a.x.cols, a.k, a.ids + t * a.k, a.values + t * a.k);
  }
}
