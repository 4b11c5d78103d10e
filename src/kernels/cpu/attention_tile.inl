// Attention, part 1: one tile of 64 keys against a few query rows, in the normative order of
// kernels/attention.h. Part 2 (attention.inl) walks the tiles of a job, part 3 (attention_plan.inl)
// splits a step into jobs.

constexpr int kTile = kAttentionTile;
constexpr int kLanes = 16;  // the lanes of the order's sums, whatever the vector width
constexpr int kMaxSegments = 4;

// A run of keys of one tile that lie side by side: a part of one KV block as it is cached, or the
// whole tile widened to f32. Tokens [begin, end) of the tile; `keys` [D][key_stride] and `values`
// [tokens][value_stride] point at token `begin`. begin and end are multiples of kLanes.
template <class T>
struct Segment {
  int begin, end;
  const T* keys;
  const T* values;
  int64_t key_stride, value_stride;
};

template <class T>
struct TileView {
  Segment<T> segments[kMaxSegments];
  int num_segments;
};

// The query rows of a job and what is known of each. O [rows][padded D].
struct RowStates {
  int64_t head_dim;          // D
  int64_t padded_dim;        // D rounded up to kLanes
  const float* q;            // [rows][D], scaled
  float* weights;            // [kTileRows][kTile], for those of the rows at hand
  const int32_t* first_key;  // [rows]: the first visible position, and
  const int32_t* end_key;    // [rows]: one beyond the last
  float* m;
  float* l;
  float* o;
};

// Where the columns of a matrix lie: row 0 of vector j of each.
template <class T>
struct SideBySide {
  const T* first_row;
  QUIRE_INLINE const T* column(int64_t j) const { return first_row + j * kWidth; }
  QUIRE_INLINE SideBySide from(int64_t j) const { return {column(j)}; }
};
template <class T>
struct Scattered {
  const T* const* first_rows;
  QUIRE_INLINE const T* column(int64_t j) const { return first_rows[j]; }
  QUIRE_INLINE Scattered from(int64_t j) const { return {first_rows + j}; }
};

// The operands of a product C [rows][columns] += A [rows][k] B [k][columns], kept in one order:
// each element of C is a chain of FMAs over increasing k. C starts at scale[row] * C, or at 0 if
// scale is null.
template <class Columns>
struct Product {
  const float* a;
  int64_t a_stride;
  Columns b;
  int64_t b_stride;
  int64_t k;
  const float* scale;
  float* c;
  int64_t c_stride;
};

// R rows x C vectors of it, in registers.
template <int R, int C, class Columns>
QUIRE_INLINE void multiply_block(const Product<Columns>& p, int64_t vector) {
  float* const c = p.c + vector * kWidth;
  F32 acc[R][C];
  QUIRE_UNROLL
  for (int r = 0; r < R; ++r) {
    QUIRE_UNROLL
    for (int j = 0; j < C; ++j) {
      acc[r][j] = p.scale == nullptr ? set1(0)
                                     : mul(load(c + r * p.c_stride + j * kWidth), set1(p.scale[r]));
    }
  }
  const Columns columns = p.b.from(vector);
  for (int64_t i = 0; i < p.k; ++i) {
    F32 row[C];
    QUIRE_UNROLL
    for (int j = 0; j < C; ++j) row[j] = load_kv(columns.column(j) + i * p.b_stride);
    QUIRE_UNROLL
    for (int r = 0; r < R; ++r) {
      const F32 x = set1(p.a[r * p.a_stride + i]);
      QUIRE_UNROLL
      for (int j = 0; j < C; ++j) acc[r][j] = fma(x, row[j], acc[r][j]);
    }
  }
  QUIRE_UNROLL
  for (int r = 0; r < R; ++r) {
    QUIRE_UNROLL
    for (int j = 0; j < C; ++j) store(c + r * p.c_stride + j * kWidth, acc[r][j]);
  }
}

// Vectors [vector, vectors) of it, C at a time, then C / 2, ...
template <int R, int C, class Columns>
inline void multiply_columns(const Product<Columns>& p, int64_t vector, int64_t vectors) {
  for (; vector + C <= vectors; vector += C) multiply_block<R, C>(p, vector);
  if constexpr (C > 1) {
    if (vector < vectors) multiply_columns<R, C / 2>(p, vector, vectors);
  }
}

// The widest power of two of columns that keeps R rows of accumulators in registers.
constexpr int columns_for(int rows) {
  int columns = 8;
  while (columns > 1 && rows * columns > kTileRows * kTileVectors) columns /= 2;
  return columns;
}

// All of it, for 1 <= rows <= kTileRows and `vectors` vectors of columns.
template <class Columns, int R = kTileRows>
inline void multiply(int rows, const Product<Columns>& p, int64_t vectors) {
  if (rows == R) {
    multiply_columns<R, columns_for(R)>(p, 0, vectors);
  } else if constexpr (R > 1) {
    multiply<Columns, R - 1>(rows, p, vectors);
  }
}

// Scores s of tokens [begin, end) of the tile -> weights; [lo, hi) are visible. Updates m and l and
// returns the factor for o. begin and end are multiples of kLanes.
inline float softmax_tile(float* s, int begin, int end, int lo, int hi, float* m, float* l) {
  const F32 lowest = set1(-__builtin_inff());
  F32 largest = lowest;
  for (int j = begin; j < end; j += kWidth) {
    F32 x = load(s + j);
    if (j < lo || j + kWidth > hi) {
      x = lanes_between(x, lo - j, hi - j, lowest);
      store(s + j, x);
    }
    largest = max(largest, x);
  }
  const float tile_max = fold_max(largest);
  const float old_max = *m;
  const float new_max = old_max > tile_max ? old_max : tile_max;
  const F32 shift = set1(new_max);
  constexpr int kHalves = kLanes / kWidth;
  F32 sums[kHalves];
  for (int h = 0; h < kHalves; ++h) sums[h] = set1(0);
  for (int j = begin; j < end; j += kLanes) {
    QUIRE_UNROLL
    for (int h = 0; h < kHalves; ++h) {
      const F32 w = exp_weight(sub(load(s + j + h * kWidth), shift));
      store(s + j + h * kWidth, w);
      sums[h] = add(sums[h], w);
    }
  }
  F32 sum = sums[0];
  for (int h = 1; h < kHalves; ++h) sum = add(sum, sums[h]);
  const float factor =
      old_max == -__builtin_inff() ? 0 : first(exp_weight(set1(old_max - new_max)));
  *m = new_max;
  *l = *l * factor + fold_add(sum);
  return factor;
}

QUIRE_INLINE int larger(int a, int b) { return a > b ? a : b; }
QUIRE_INLINE int smaller(int a, int b) { return a < b ? a : b; }

// The rows at hand: their scores, then weights, of the tile, their visible ranges inside it and the
// factors that o still needs.
struct RowGroup {
  int row, count;
  float* weights;  // [count][kTile], rows `stride` apart
  int64_t stride;
  int lo[kTileRows], hi[kTileRows];
  float factor[kTileRows];
};

// o of rows [r, r + count) of the group += weights * values, tokens [begin, end) of the tile.
template <class T>
QUIRE_INLINE void add_values(const RowStates& s,
                             RowGroup& g,
                             int r,
                             int count,
                             const Segment<T>& segment,
                             int begin,
                             int end) {
  begin = larger(begin, segment.begin);
  end = smaller(end, segment.end);
  if (begin >= end) return;
  const Product<SideBySide<T>> product{
      g.weights + r * g.stride + begin,
      g.stride,
      {segment.values + (begin - segment.begin) * segment.value_stride},
      segment.value_stride,
      end - begin,
      g.factor + r,
      s.o + (g.row + r) * s.padded_dim,
      s.padded_dim};
  multiply(count, product, (s.head_dim + kWidth - 1) / kWidth);
  for (int i = r; i < r + count; ++i) g.factor[i] = 1.0F;
}

// Values of a segment into o. An invisible key is skipped, not multiplied by 0: its value may be
// another row's infinity. All rows go together over the tokens that all of them see; what only
// some see, before and after, goes row by row, which keeps each row's order.
template <class T>
QUIRE_INLINE void add_segment(const RowStates& s, RowGroup& g, const Segment<T>& segment) {
  int lo = g.lo[0];
  int hi = g.hi[0];
  for (int r = 1; r < g.count; ++r) {
    lo = larger(lo, g.lo[r]);
    hi = smaller(hi, g.hi[r]);
  }
  if (lo >= hi) lo = hi = kTile;  // nothing in common
  for (int r = 0; r < g.count; ++r) {
    if (g.lo[r] < lo) add_values(s, g, r, 1, segment, g.lo[r], smaller(lo, g.hi[r]));
  }
  add_values(s, g, 0, g.count, segment, lo, hi);
  for (int r = 0; r < g.count; ++r) {
    if (g.hi[r] > hi) add_values(s, g, r, 1, segment, larger(hi, g.lo[r]), g.hi[r]);
  }
}

template <class T>
QUIRE_INLINE void prefetch_range(const T* p, int64_t elements) {
  const char* byte = reinterpret_cast<const char*>(p);
  for (int64_t i = 0; i < elements * static_cast<int64_t>(sizeof(T)); i += 64) prefetch(byte + i);
}

template <class T>
QUIRE_INLINE void prefetch_keys(const Segment<T>& segment, int64_t head_dim) {
  const int64_t tokens = segment.end - segment.begin;
  if (segment.key_stride == tokens) {
    prefetch_range(segment.keys, tokens * head_dim);
    return;
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    prefetch_range(segment.keys + d * segment.key_stride, tokens);
  }
}

// With one or two rows, the columns of one block of 16 tokens are too few chains of FMAs to hide
// their latency, so those of all blocks go together; with more rows it is faster to read block
// after block (AVX2, 16-token blocks, f16: 11.0 -> 13.7 GB/s of KV with 1 row, 9.3 -> 8.2 with 3).
constexpr int kScatteredRows = 2;

// Scores of tokens [begin, end) of the tile, multiples of kLanes, for the rows at hand; fetches the
// keys of `next`.
template <class T>
QUIRE_INLINE void score_tokens(const RowStates& s,
                               const RowGroup& g,
                               const TileView<T>& tile,
                               const TileView<T>& next,
                               int begin,
                               int end) {
  const float* q = s.q + g.row * s.head_dim;
  const int64_t stride = tile.segments[0].key_stride;
  const T* columns[8];  // kTile / kWidth or more
  int n = 0;
  for (int i = 0; i < tile.num_segments; ++i) {
    const Segment<T>& segment = tile.segments[i];
    const int from = larger(begin, segment.begin);
    const int to = smaller(end, segment.end);
    const T* keys = segment.keys + (from - segment.begin);
    if (i < next.num_segments) prefetch_keys(next.segments[i], s.head_dim);
    if (g.count <= kScatteredRows) {
      for (int j = from; j < to; j += kWidth) columns[n++] = keys + (j - from);
    } else if (from < to) {
      const Product<SideBySide<T>> product{
          q, s.head_dim, {keys}, stride, s.head_dim, nullptr, g.weights + from, g.stride};
      multiply(g.count, product, (to - from) / kWidth);
    }
  }
  if (n > 0) {
    const Product<Scattered<T>> product{
        q, s.head_dim, {columns}, stride, s.head_dim, nullptr, g.weights + begin, g.stride};
    multiply<Scattered<T>, kScatteredRows>(g.count, product, n);
  }
}

// Rows [row_begin, row_end) go in groups of so many: 8 rows are 4 + 4, not 6 + 2.
QUIRE_INLINE int group_rows(int row_begin, int row_end) {
  const int groups = (row_end - row_begin + kTileRows - 1) / kTileRows;
  return groups == 0 ? 1 : (row_end - row_begin + groups - 1) / groups;
}

// What rows [row, row + count) see of the tile at `position`: each row in g, all of them together
// in [*begin, *end), multiples of kLanes.
QUIRE_INLINE void find_group(
    const RowStates& s, int32_t position, int row, int count, RowGroup* g, int* begin, int* end) {
  g->row = row;
  g->count = count;
  *begin = kTile;
  *end = 0;
  for (int r = 0; r < count; ++r) {
    g->lo[r] = larger(0, s.first_key[row + r] - position);
    g->hi[r] = smaller(kTile, s.end_key[row + r] - position);
    *begin = smaller(*begin, g->lo[r] / kLanes * kLanes);
    *end = larger(*end, (g->hi[r] + kLanes - 1) / kLanes * kLanes);
  }
}

// Tile of keys [position, position + 64) for rows [row_begin, row_end), each of which sees at least
// one of its keys. `next`: the tile that comes after, fetched meanwhile; may be empty.
template <class T>
inline void attend_tile(const RowStates& s,
                        const TileView<T>& tile,
                        const TileView<T>& next,
                        int32_t position,
                        int row_begin,
                        int row_end) {
  const int step = group_rows(row_begin, row_end);
  for (int row = row_begin; row < row_end; row += step) {
    RowGroup g;
    int begin;
    int end;
    find_group(s, position, row, smaller(step, row_end - row), &g, &begin, &end);
    g.weights = s.weights;
    g.stride = kTile;
    score_tokens(s, g, tile, next, begin, end);
    for (int r = 0; r < g.count; ++r) {
      g.factor[r] = softmax_tile(
          g.weights + r * kTile, begin, end, g.lo[r], g.hi[r], s.m + row + r, s.l + row + r);
    }
    for (int i = 0; i < tile.num_segments; ++i) {
      if (i < next.num_segments) {
        const Segment<T>& ahead = next.segments[i];
        prefetch_range(ahead.values, (ahead.end - ahead.begin) * ahead.value_stride);
      }
      add_segment(s, g, tile.segments[i]);
    }
  }
}

// Merges the partial (m, l, o) of one row into the total (M, L, O); l = 0: it has no visible key.
inline void merge_partial(float m,
                          float l,
                          const float* o,
                          int64_t padded_dim,
                          float* total_m,
                          float* total_l,
                          float* total_o) {
  if (l == 0) return;
  if (*total_l == 0) {
    for (int64_t d = 0; d < padded_dim; d += kWidth) store(total_o + d, load(o + d));
    *total_m = m;
    *total_l = l;
    return;
  }
  const float new_m = *total_m > m ? *total_m : m;
  const F32 a = exp_weight(set1(*total_m - new_m));
  const F32 b = exp_weight(set1(mutant("kernels_partials_unscaled") ? 0.0f : m - new_m));
  for (int64_t d = 0; d < padded_dim; d += kWidth) {
    store(total_o + d, add(mul(load(total_o + d), a), mul(load(o + d), b)));
  }
  *total_m = new_m;
  *total_l = *total_l * first(a) + l * first(b);
}
