// The part of the matrix ops that is the same on every level: threads, panels, row blocks, the
// final scaling. Included once by each gemm_<level>.cc, inside an anonymous
// namespace, after the level has defined
//
//   constexpr int kSmallRows;   // up to here rows go straight against the records
//   // acc[r][32] = sums of row r of the panel before the row scale; rows [0, m), m <= kSmallRows
//   void accumulate_small(DType, const unsigned char* panel, const Rows&, unsigned char* scratch,
//                         float* acc);
//   // the same for rows [row0, row0 + m), any m; the panel is unpacked once per K block
//   void accumulate_rows(DType, const unsigned char* panel, const Rows&, int64_t row0, int64_t m,
//                        unsigned char* scratch, float* acc);
//   int64_t panel_bytes(DType, int64_t k);
//
// struct Rows is defined in gemm_rows.inl, which the level includes first.

constexpr int kRowBlock = 256;  // rows per unpacking: their codes of a K block stay in L2
constexpr int kTailShare = 4;   // one in so many panels is handed out as threads get free

struct LinearJob {
  const LinearArgs* args;
  unsigned char* scratch;
  Rows rows;
  int64_t num_panels;     // over all segments
  int64_t static_panels;  // the first so many are divided evenly, the others taken one by one
  int64_t next;           // atomic: the next of those
};

// y[row0 + r, column .. column + n) from acc[r][32]. The order of roundings is the same for every
// row whatever the path: row scale, bias, y.
void finish_rows(
    const LinearJob& job, const float* acc, int64_t row0, int64_t m, int64_t column, int n) {
  const LinearArgs& args = *job.args;
  const bool scaled = job.rows.type == ActivationType::kInt16;
  for (int64_t r = 0; r < m; ++r) {
    float v[32];
    const float* a = acc + r * 32;
    const float scale = scaled ? job.rows.scale(row0 + r)[0] : 1.0f;
    for (int c = 0; c < 32; ++c) v[c] = a[c] * scale;
    float* y = args.y.data + (row0 + r) * args.y.stride + column;
    if (args.bias != nullptr && !(n < 32 && mutant("kernels_linear_tail_without_bias"))) {
      for (int c = 0; c < n; ++c) v[c] += args.bias[column + c];
    }
    if (args.add_to_y) {
      for (int c = 0; c < n; ++c) y[c] += v[c];
    } else {
      for (int c = 0; c < n; ++c) y[c] = v[c];
    }
  }
}

void linear_panel(const LinearJob& job, int64_t index, unsigned char* scratch) {
  const LinearArgs& args = *job.args;
  const PackedMatrix* segment = args.segments;
  int64_t panel = index, column = 0;
  while (panel >= (segment->n + 31) / 32) {
    panel -= (segment->n + 31) / 32;
    column += segment->n;
    ++segment;
  }
  column += panel * 32;
  const int64_t left = segment->n - panel * 32;
  const int n = left < 32 ? static_cast<int>(left) : 32;
  const unsigned char* data = segment->data + panel * panel_bytes(segment->type, segment->k);
  float* acc = reinterpret_cast<float*>(scratch);
  scratch += kRowBlock * 32 * sizeof(float);
  if (job.rows.count <= kSmallRows) {
    accumulate_small(segment->type, data, job.rows, scratch, acc);
    finish_rows(job, acc, 0, job.rows.count, column, n);
    return;
  }
  for (int64_t row0 = 0; row0 < job.rows.count; row0 += kRowBlock) {
    const int64_t rest = job.rows.count - row0;
    const int64_t m = rest < kRowBlock ? rest : kRowBlock;
    accumulate_rows(segment->type, data, job.rows, row0, m, scratch, acc);
    finish_rows(job, acc, row0, m, column, n);
  }
}

void linear_body(void* arg, int32_t thread, int32_t num_threads) {
  LinearJob& job = *static_cast<LinearJob*>(arg);
  unsigned char* scratch = job.scratch + thread * kScratchBytesPerThread;
  const int64_t begin = job.static_panels * thread / num_threads;
  const int64_t end = job.static_panels * (thread + 1) / num_threads;
  for (int64_t p = begin; p < end; ++p) linear_panel(job, p, scratch);
  if (num_threads == 1) return;
  for (;;) {
    const int64_t p = __atomic_fetch_add(&job.next, 1, __ATOMIC_RELAXED);
    if (p >= job.num_panels) break;
    linear_panel(job, p, scratch);
  }
}

void run_linear(const ExecContext& exec, const LinearArgs& args) {
  if (args.x.rows == 0) return;
  LinearJob job = {&args, exec.scratch, make_rows(args.x), 0, 0, 0};
  for (int32_t s = 0; s < args.num_segments; ++s) {
    const PackedMatrix& w = args.segments[s];
    if (w.type <= DType::kBF16 && args.x.type != ActivationType::kF32) __builtin_trap();  // ops.h
    job.num_panels += (w.n + 31) / 32;
  }
  job.static_panels = exec.parallel.num_threads == 1 ? job.num_panels
                                                     : job.num_panels - job.num_panels / kTailShare;
  job.next = job.static_panels;
  exec.parallel.run(exec.parallel.pool, linear_body, &job);
}

// ---- embedding

void embedding_body(void* arg, int32_t thread, int32_t num_threads) {
  const EmbeddingArgs& args = *static_cast<const EmbeddingArgs*>(arg);
  const int64_t begin = args.out.rows * thread / num_threads;
  const int64_t end = args.out.rows * (thread + 1) / num_threads;
  for (int64_t t = begin; t < end; ++t) {
    dequantize_row(args.table, args.ids[t], args.out.data + t * args.out.stride);
  }
}

void run_embedding(const ExecContext& exec, const EmbeddingArgs& args) {
  EmbeddingArgs copy = args;
  exec.parallel.run(exec.parallel.pool, embedding_body, &copy);
}
