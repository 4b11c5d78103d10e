// kv_write: keys scattered into [D][B], values copied into [B][D]. Items (head, token) are split
// over the threads by head first, so that tokens of one block, whose keys share cache lines, are
// mostly written by one thread.

template <class T>
inline int64_t kv_write_item(const KvWriteArgs& a, int64_t token, int32_t head) {
  const int64_t d = a.layout.head_dim;
  const int64_t b = a.layout.block_size;
  const int64_t slot = a.slots[token];
  if (slot < 0) return 0;
  T* keys = reinterpret_cast<T*>(a.kv_layer) +
            ((slot / b) * a.layout.num_kv_heads + head) * 2 * d * b + slot % b;
  T* values = keys - slot % b + d * b + slot % b * d;
  const float* k = a.k.data + token * a.k.stride + head * d;
  const float* v = a.v.data + token * a.v.stride + head * d;
  int64_t overflows = 0;
  for (int64_t i = 0; i < d; i += kWidth) {
    const int lanes = d - i < kWidth ? static_cast<int>(d - i) : kWidth;
    T narrow[kWidth];
    overflows += store_kv(narrow, load_n(k + i, lanes));
    for (int j = 0; j < lanes; ++j) keys[(i + j) * b] = narrow[j];
    overflows += store_kv(narrow, load_n(v + i, lanes));
    for (int j = 0; j < lanes; ++j) values[i + j] = narrow[j];
  }
  return overflows;
}

template <class T>
inline void kv_write_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const KvWriteArgs*>(arg);
  int64_t overflows = 0;
  for (int64_t item = begin; item < end; ++item) {
    overflows += kv_write_item<T>(a, item % a.k.rows, static_cast<int32_t>(item / a.k.rows));
  }
  if (overflows > 0) __atomic_fetch_add(a.overflows, overflows, __ATOMIC_RELAXED);
}

inline void kv_write_all(const ExecContext& exec, const KvWriteArgs& a) {
  const RowsFn fn = a.layout.dtype == DType::kF32   ? kv_write_rows<float>
                    : a.layout.dtype == DType::kF16 ? kv_write_rows<F16>
                                                    : kv_write_rows<BF16>;
  const int64_t items = a.k.rows * a.layout.num_kv_heads;
  run_rows(exec, &a, fn, items, items * a.layout.head_dim * 2);
}
