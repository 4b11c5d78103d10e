// Attention, part 2: running one job. A step's sequences, prefill and decode alike, become one list
// of jobs (attention_plan.inl) that the threads take one by one. A job is (sequence, KV head, tile
// of query rows): rows are the tokens x the query heads of the group, so that all of them share
// each key and value that is read. With too few jobs for the threads (decode at long context), jobs
// are split at the 512-token partials and the thread that finishes the last piece merges them in
// order: same bits, whoever does it.
//
// Large row tiles widen each tile of 64 keys to f32 once (in L1/L2: 32 KiB at D = 64); a few rows
// (decode) read the cached blocks directly. Bound: FMA for prefill, memory reads for decode.

#include "kernels/cpu/attention_tile.inl"

constexpr int kRowTile = 96;
constexpr int kDirectRows = 2 * kTileRows;  // beyond: widening once pays
constexpr int kMaxHeadDim = 1024;
constexpr int64_t kPrivateBytes = 4 << 20;  // of each thread's scratch; then the split's slots
constexpr int64_t kPlanBytes = 1 << 20;     // at the end of thread 0's scratch
constexpr int64_t kSlotBytes = kScratchBytesPerThread - kPrivateBytes - kPlanBytes;

struct AttentionJob {
  int32_t seq, head;
  int32_t row_begin, row_end;    // of num_queries x group
  int32_t part_begin, part_end;  // partials of kAttentionPartial tokens
  int32_t split;                 // index into the plan's splits, or -1
};
// A job cut in pieces: its partial p is kept in slot first_slot + p - part_begin.
struct AttentionSplit {
  int32_t pieces_left;
  int32_t part_begin, part_end;
  int32_t first_slot;
};

struct AttentionPlan {
  const AttentionArgs* args;
  unsigned char* scratch;
  AttentionJob* jobs;
  AttentionSplit* splits;
  int64_t num_jobs, next_job;
  int64_t slot_bytes;
  int32_t group;  // query heads per KV head
};

QUIRE_INLINE int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

QUIRE_INLINE int32_t num_queries(const AttentionArgs& a, int32_t seq) {
  return a.query_start[seq + 1] - a.query_start[seq];
}
QUIRE_INLINE int32_t row_position(const AttentionPlan& p, int32_t seq, int32_t row) {
  const AttentionArgs& a = *p.args;
  return a.kv_len[seq] - num_queries(a, seq) + row / p.group;
}
QUIRE_INLINE int32_t first_visible(const AttentionArgs& a, int32_t position) {
  return a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
}

// ---- Memory of a job

struct JobMemory {
  float* q;
  float* keys;
  float* values;
  float* weights;
  float* total_o;
  float* total_m;
  float* total_l;
  int32_t* first_key;
  int32_t* end_key;
  float* m;
  float* l;
  float* o;
};

template <class T>
QUIRE_INLINE T* take(unsigned char*& at, int64_t count) {
  T* taken = reinterpret_cast<T*>(at);
  at += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
  return taken;
}

// kMaxHeadDim: 4 x 96 x 1024 floats + 2 x 64 x 1024 floats = 2 MiB of the 4.
inline JobMemory job_memory(unsigned char* at, int64_t padded_dim) {
  JobMemory memory;
  memory.q = take<float>(at, kRowTile * padded_dim);
  memory.keys = take<float>(at, kTile * padded_dim);
  memory.values = take<float>(at, kTile * padded_dim);
  memory.weights = take<float>(at, kTileRows * kTile);
  memory.total_o = take<float>(at, kRowTile * padded_dim);
  memory.total_m = take<float>(at, kRowTile);
  memory.total_l = take<float>(at, kRowTile);
  memory.first_key = take<int32_t>(at, kRowTile);
  memory.end_key = take<int32_t>(at, kRowTile);
  memory.m = take<float>(at, kRowTile);
  memory.l = take<float>(at, kRowTile);
  memory.o = take<float>(at, kRowTile * padded_dim);
  return memory;
}

// A slot holds m, l, o of one partial of a split job's rows; slots live in all threads' scratch.
QUIRE_INLINE int64_t slots_per_thread(int64_t slot_bytes) { return kSlotBytes / slot_bytes; }
inline void use_slot(const AttentionPlan& p, int64_t slot, int64_t rows, JobMemory* memory) {
  const int64_t per_thread = slots_per_thread(p.slot_bytes);
  unsigned char* at = p.scratch + slot / per_thread * kScratchBytesPerThread + kPrivateBytes +
                      slot % per_thread * p.slot_bytes;
  memory->m = take<float>(at, rows);
  memory->l = take<float>(at, rows);
  memory->o = reinterpret_cast<float*>(at);
}

// ---- Keys and values

// Where one head's keys of a sequence's blocks are cached: through the sequence's block table, or,
// where the ids follow one another (a contiguous region), by the distance of the blocks alone.
template <class T>
struct CachedBlocks {
  const T* origin;       // of block id 0, or of what would be the region's block 0
  const int32_t* table;  // null: contiguous
  int64_t stride;        // elements from block to block
  int32_t block_size;
  int64_t head_dim;
  // [D][B]; the values [B][D] follow.
  QUIRE_INLINE const T* keys(int32_t block) const {
    return origin + (table == nullptr ? block : table[block]) * stride;
  }
};

// Of blocks [first, last]: entries beyond are undefined.
template <class T>
inline CachedBlocks<T> cached_blocks(
    const AttentionArgs& a, int32_t seq, int32_t head, int32_t first, int32_t last) {
  const int64_t size = static_cast<int64_t>(a.layout.head_dim) * a.layout.block_size;
  const int32_t* table = a.block_tables + static_cast<int64_t>(seq) * a.block_table_stride;
  CachedBlocks<T> blocks{reinterpret_cast<const T*>(a.kv_layer) + head * 2 * size,
                         table,
                         a.layout.num_kv_heads * 2 * size,
                         a.layout.block_size,
                         a.layout.head_dim};
  for (int32_t i = first; i < last - (mutant("kernels_region_ends_unseen") ? 1 : 0); ++i) {
    if (table[i + 1] != table[i] + 1) return blocks;
  }
  blocks.table = nullptr;
  blocks.origin += (static_cast<int64_t>(table[first]) - first) * blocks.stride;
  return blocks;
}

// Keys [lo, hi) of the tile at `position`, where they are cached. Blocks of at least kLanes tokens.
template <class T>
inline TileView<T> cached_tile(const CachedBlocks<T>& blocks, int32_t position, int lo, int hi) {
  const int32_t b = blocks.block_size;
  const int64_t d = blocks.head_dim;
  TileView<T> view;
  view.num_segments = 0;
  const int step = smaller(b, kTile);
  for (int begin = lo / step * step; begin < hi; begin += step) {
    const T* keys = blocks.keys((position + begin) / b);
    const int offset = (position + begin) % b;
    view.segments[view.num_segments++] = {
        begin, begin + step, keys + offset, keys + d * b + offset * d, b, d};
  }
  return view;
}

// The same keys widened to f32: keys [D][kTile], values [kTile][padded D].
template <class T>
inline void widen_tile(
    const CachedBlocks<T>& blocks, const JobMemory& memory, int32_t position, int lo, int hi) {
  const int32_t b = blocks.block_size;
  const int64_t d = blocks.head_dim;
  const int64_t padded = round_up(d, kLanes);
  for (int j = lo; j < hi;) {
    const int offset = (position + j) % b;
    const int count = smaller(b - offset, hi - j);
    const T* keys = blocks.keys((position + j) / b) + offset;
    const T* values = keys - offset + d * b + offset * d;
    for (int64_t i = 0; i < d; ++i) {
      int c = 0;
      for (; c + kWidth <= count; c += kWidth) {
        store(memory.keys + i * kTile + j + c, load_kv(keys + i * b + c));
      }
      for (; c < count; ++c) memory.keys[i * kTile + j + c] = widen(keys[i * b + c]);
    }
    for (int c = 0; c < count; ++c) {
      float* to = memory.values + (j + c) * padded;
      int64_t i = 0;
      for (; i + kWidth <= d; i += kWidth) store(to + i, load_kv(values + c * d + i));
      for (; i < d; ++i) to[i] = widen(values[c * d + i]);
    }
    j += count;
  }
}

QUIRE_INLINE TileView<float> widened_tile(const JobMemory& memory, int64_t padded) {
  TileView<float> view;
  view.num_segments = 1;
  view.segments[0] = {0, kTile, memory.keys, memory.values, kTile, padded};
  return view;
}

// ---- A job

// q' = q * scale, and what each row sees.
inline void load_rows(const AttentionPlan& p, const AttentionJob& job, const JobMemory& memory) {
  const AttentionArgs& a = *p.args;
  const int64_t d = a.layout.head_dim;
  const F32 scale = set1(a.scale);
  for (int32_t row = job.row_begin; row < job.row_end; ++row) {
    const int r = row - job.row_begin;
    const int64_t token = a.query_start[job.seq] + row / p.group;
    const int64_t head = static_cast<int64_t>(job.head) * p.group + row % p.group;
    const float* q = a.q.data + token * a.q.stride + head * d;
    float* to = memory.q + r * d;
    for (int64_t i = 0; i < d; i += kWidth) {
      const int lanes = d - i < kWidth ? static_cast<int>(d - i) : kWidth;
      store_n(to + i, mul(load_n(q + i, lanes), scale), lanes);
    }
    const int32_t position = row_position(p, job.seq, row);
    memory.first_key[r] = first_visible(a, position);
    memory.end_key[r] = position + 1;
  }
}

// All tiles of one partial into m, l, o of the job's rows.
template <class T>
inline void attend_partial(const AttentionPlan& p,
                           const AttentionJob& job,
                           const JobMemory& memory,
                           int32_t partial) {
  const AttentionArgs& a = *p.args;
  const int64_t d = a.layout.head_dim;
  const int64_t padded = round_up(d, kLanes);
  const int rows = job.row_end - job.row_begin;
  for (int r = 0; r < rows; ++r) {
    memory.m[r] = -__builtin_inff();
    memory.l[r] = 0;
  }
  for (int64_t i = 0; i < rows * padded; i += kWidth) store(memory.o + i, set1(0));
  const RowStates states{d,
                         padded,
                         memory.q,
                         memory.weights,
                         memory.first_key,
                         memory.end_key,
                         memory.m,
                         memory.l,
                         memory.o};
  const bool direct = rows <= kDirectRows && a.layout.block_size >= kLanes && d % kWidth == 0;
  const int32_t first = memory.first_key[0];
  const int32_t end = memory.end_key[rows - 1];
  const int32_t part_end = smaller((partial + 1) * kAttentionPartial, end);
  const int32_t part_begin = larger(partial * kAttentionPartial, first / kTile * kTile);
  const CachedBlocks<T> blocks = cached_blocks<T>(a,
                                                  job.seq,
                                                  job.head,
                                                  larger(part_begin, first) / a.layout.block_size,
                                                  (part_end - 1) / a.layout.block_size);
  int row_begin = 0;
  int row_end = 0;
  for (int32_t t = part_begin; t < part_end; t += kTile) {
    // Rows see later keys the later they stand: those with a key in this tile are a range.
    while (memory.end_key[row_begin] <= t) ++row_begin;
    while (row_end < rows && memory.first_key[row_end] < t + kTile) ++row_end;
    const int lo = larger(0, first - t);
    const int hi = smaller(kTile, end - t);
    if (direct) {
      TileView<T> next;
      next.num_segments = 0;
      if (t + kTile < part_end) {
        next = cached_tile<T>(blocks, t + kTile, 0, smaller(kTile, end - t - kTile));
      }
      attend_tile<T>(states, cached_tile<T>(blocks, t, lo, hi), next, t, row_begin, row_end);
    } else {
      widen_tile<T>(blocks, memory, t, lo, hi);
      TileView<float> none;
      none.num_segments = 0;
      attend_tile<float>(states, widened_tile(memory, padded), none, t, row_begin, row_end);
    }
  }
}

inline void clear_totals(const JobMemory& memory, int rows) {
  for (int r = 0; r < rows; ++r) {
    memory.total_m[r] = -__builtin_inff();
    memory.total_l[r] = 0;
  }
}

inline void merge_rows(const JobMemory& memory, int rows, int64_t padded) {
  for (int r = 0; r < rows; ++r) {
    merge_partial(memory.m[r],
                  memory.l[r],
                  memory.o + r * padded,
                  padded,
                  memory.total_m + r,
                  memory.total_l + r,
                  memory.total_o + r * padded);
  }
}

// out = O / L.
inline void write_rows(const AttentionPlan& p, const AttentionJob& job, const JobMemory& memory) {
  const AttentionArgs& a = *p.args;
  const int64_t d = a.layout.head_dim;
  const int64_t padded = round_up(d, kLanes);
  for (int32_t row = job.row_begin; row < job.row_end; ++row) {
    const int r = row - job.row_begin;
    const int64_t token = a.query_start[job.seq] + row / p.group;
    const int64_t head = static_cast<int64_t>(job.head) * p.group + row % p.group;
    float* out = a.out.data + token * a.out.stride + head * d;
    const F32 total = set1(memory.total_l[r]);
    for (int64_t i = 0; i < d; i += kWidth) {
      const int lanes = d - i < kWidth ? static_cast<int>(d - i) : kWidth;
      store_n(out + i, div(load(memory.total_o + r * padded + i), total), lanes);
    }
  }
}

template <class T>
inline void run_job(const AttentionPlan& p, const AttentionJob& job, unsigned char* scratch) {
  const int64_t padded = round_up(p.args->layout.head_dim, kLanes);
  const int rows = job.row_end - job.row_begin;
  JobMemory memory = job_memory(scratch, padded);
  load_rows(p, job, memory);
  if (job.split < 0) {
    clear_totals(memory, rows);
    for (int32_t part = job.part_begin; part < job.part_end; ++part) {
      attend_partial<T>(p, job, memory, part);
      merge_rows(memory, rows, padded);
    }
    write_rows(p, job, memory);
    return;
  }
  AttentionSplit& split = p.splits[job.split];
  for (int32_t part = job.part_begin; part < job.part_end; ++part) {
    use_slot(p, split.first_slot + part - split.part_begin, rows, &memory);
    attend_partial<T>(p, job, memory, part);
  }
  if (__atomic_sub_fetch(&split.pieces_left, 1, __ATOMIC_ACQ_REL) > 0) return;
  clear_totals(memory, rows);
  for (int32_t part = split.part_begin; part < split.part_end; ++part) {
    use_slot(p, split.first_slot + part - split.part_begin, rows, &memory);
    merge_rows(memory, rows, padded);
  }
  write_rows(p, job, memory);
}

inline void run_jobs(void* arg, int32_t thread, int32_t) {
  auto& p = *static_cast<AttentionPlan*>(arg);
  unsigned char* scratch = p.scratch + thread * kScratchBytesPerThread;
  for (;;) {
    const int64_t i = __atomic_fetch_add(&p.next_job, 1, __ATOMIC_RELAXED);
    if (i >= p.num_jobs) return;
    const DType type = p.args->layout.dtype;
    if (type == DType::kF32) {
      run_job<float>(p, p.jobs[i], scratch);
    } else if (type == DType::kF16) {
      run_job<F16>(p, p.jobs[i], scratch);
    } else {
      run_job<BF16>(p, p.jobs[i], scratch);
    }
  }
}
