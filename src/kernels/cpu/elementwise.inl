// RMSNorm, LayerNorm, RoPE, SiLU-and-mul, ReLU, add, bias, gather. Bound by memory; every row is
// computed by one thread in one fixed order, so threads and batch cannot change its bits.
//
// Sums over a row: vector i goes to accumulator i mod 4, accumulators are added (0+1)+(2+3), lanes
// folded by halves. Lanes beyond the row add 0.

// fn(vector, first column, lanes) is called for each vector of a row of n columns.
template <class Fn>
QUIRE_INLINE void for_each_vector(int64_t n, Fn fn) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) fn(i, kWidth);
  if (i < n) fn(i, static_cast<int>(n - i));
}
QUIRE_INLINE F32 load_lanes(const float* p, int lanes) {
  return lanes == kWidth ? load(p) : load_n(p, lanes);
}
QUIRE_INLINE void store_lanes(float* p, F32 v, int lanes) {
  if (lanes == kWidth) {
    store(p, v);
  } else {
    store_n(p, v, lanes);
  }
}

// Sum over the row of term(column, lanes), whose lanes beyond the row are 0.
template <class Term>
QUIRE_INLINE float sum_row(int64_t n, Term term) {
  F32 acc[4] = {set1(0), set1(0), set1(0), set1(0)};
  int64_t i = 0;
  for (; i + 4 * kWidth <= n; i += 4 * kWidth) {
    QUIRE_UNROLL
    for (int a = 0; a < 4; ++a) acc[a] = add(acc[a], term(i + a * kWidth, kWidth));
  }
  for (int a = 0; i < n; i += kWidth, ++a) {
    const int lanes = n - i < kWidth ? static_cast<int>(n - i) : kWidth;
    const F32 t = term(i, lanes);
    QUIRE_UNROLL
    for (int b = 0; b < 4; ++b) acc[b] = add(acc[b], a == b ? t : set1(0));
  }
  return fold_add(add(add(acc[0], acc[1]), add(acc[2], acc[3])));
}

QUIRE_INLINE float inverse_sqrt(float x) { return first(div(set1(1.0F), sqrt(set1(x)))); }

inline void rms_norm_row(const float* x, const float* weight, float eps, int64_t n, float* y) {
  const float sum = sum_row(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    const F32 v = load_lanes(x + i, lanes);
    return mul(v, v);
  });
  const F32 scale = set1(inverse_sqrt(sum / static_cast<float>(n) + eps));
  for_each_vector(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    const F32 v = mul(load_lanes(x + i, lanes), scale);
    store_lanes(y + i, mul(v, load_lanes(weight + i, lanes)), lanes);
  });
}

inline void add_row(const float* x, float* y, int64_t n) {
  for_each_vector(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    store_lanes(y + i, add(load_lanes(y + i, lanes), load_lanes(x + i, lanes)), lanes);
  });
}

inline void rms_norm_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const RmsNormArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    rms_norm_row(a.x.data + t * a.x.stride, a.weight, a.eps, a.x.cols, a.y.data + t * a.y.stride);
  }
}

inline void head_rms_norm_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const HeadRmsNormArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    for (int32_t h = 0; h < a.heads; ++h) {
      float* x = a.x.data + t * a.x.stride + static_cast<int64_t>(h) * a.head_dim;
      rms_norm_row(x, a.weight, a.eps, a.head_dim, x);
    }
  }
}

// Two passes: the variance is the mean of (x - mean)^2.
inline void layer_norm_row(
    const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  const float sum =
      sum_row(n, [=](int64_t i, int lanes) QUIRE_LAMBDA { return load_lanes(x + i, lanes); });
  const F32 mean = set1(sum / static_cast<float>(n));
  const float squares = sum_row(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    const F32 v = sub(load_lanes(x + i, lanes), mean);
    return lanes_between(mul(v, v), 0, lanes, set1(0));
  });
  const F32 scale = set1(inverse_sqrt(squares / static_cast<float>(n) + eps));
  for_each_vector(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    F32 v = mul(sub(load_lanes(x + i, lanes), mean), scale);
    v = mul(v, load_lanes(weight + i, lanes));
    if (bias != nullptr) v = add(v, load_lanes(bias + i, lanes));
    store_lanes(y + i, v, lanes);
  });
}

inline void layer_norm_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const LayerNormArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    const float* x = a.x.data + t * a.x.stride;
    layer_norm_row(x, a.weight, a.bias, a.eps, a.x.cols, a.y.data + t * a.y.stride);
  }
}

inline void add_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const AddArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    add_row(a.x.data + t * a.x.stride, a.y.data + t * a.y.stride, a.x.cols);
  }
}

inline void add_bias_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const AddBiasArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) add_row(a.bias, a.y.data + t * a.y.stride, a.y.cols);
}

inline void silu_and_mul_row(const float* gate, const float* up, int64_t n, float* y) {
  for_each_vector(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    const F32 g = load_lanes(gate + i, lanes);
    const F32 silu = div(g, add(set1(1.0F), exp(sub(set1(0), g))));
    store_lanes(y + i, mul(silu, load_lanes(up + i, lanes)), lanes);
  });
}

inline void silu_and_mul_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const SiluAndMulArgs*>(arg);
  const int64_t n = a.y.cols;
  for (int64_t t = begin; t < end; ++t) {
    const float* gate = a.gate_up.data + t * a.gate_up.stride;
    silu_and_mul_row(gate, gate + n, n, a.y.data + t * a.y.stride);
  }
}

// y may be x.
inline void relu_row(const float* x, int64_t n, float* y) {
  for_each_vector(n, [=](int64_t i, int lanes) QUIRE_LAMBDA {
    store_lanes(y + i, max(set1(0), load_lanes(x + i, lanes)), lanes);
  });
}

inline void relu_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const ReluArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    float* x = a.x.data + t * a.x.stride;
    relu_row(x, a.x.cols, x);
  }
}

// (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin).
inline void rope_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const RopeArgs*>(arg);
  const int32_t half = a.rotary_dim / 2;
  for (int64_t t = begin; t < end; ++t) {
    const float* cosine = a.cos_sin + static_cast<int64_t>(a.positions[t]) * a.rotary_dim;
    const float* sine = cosine + half;
    for (int32_t h = 0; h < a.heads; ++h) {
      float* x = a.x.data + t * a.x.stride + static_cast<int64_t>(h) * a.head_dim;
      for_each_vector(half, [=](int64_t i, int lanes) QUIRE_LAMBDA {
        const F32 c = load_lanes(cosine + i, lanes);
        const F32 s = load_lanes(sine + i, lanes);
        const F32 x0 = load_lanes(x + i, lanes);
        const F32 x1 = load_lanes(x + half + i, lanes);
        store_lanes(x + i, sub(mul(x0, c), mul(x1, s)), lanes);
        store_lanes(x + half + i, add(mul(x1, c), mul(x0, s)), lanes);
      });
    }
  }
}

inline void gather_rows_rows(const void* arg, int64_t begin, int64_t end) {
  const auto& a = *static_cast<const GatherRowsArgs*>(arg);
  for (int64_t t = begin; t < end; ++t) {
    const float* x = a.x.data + a.rows[t] * a.x.stride;
    float* y = a.y.data + t * a.y.stride;
    for_each_vector(a.x.cols, [=](int64_t i, int lanes) QUIRE_LAMBDA {
      store_lanes(y + i, load_lanes(x + i, lanes), lanes);
    });
  }
}
