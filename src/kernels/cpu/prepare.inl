// Prepares activation rows for `linear` (gemm_common.h): as they are, normalised, or through an
// activation function. The fused ops make one row at a time in the thread's scratch, which stays in
// the cache, and quantise it from there: the same functions as the separate ops, so the same bits.
// Included by prepare_<level>.cc after simd_<level>.inl, common.inl, elementwise.inl, rows.inl and
// the level's store_codes().

// The largest magnitude as its bits: these order like the values, with infinities and NaNs on top.
int32_t max_magnitude_bits(const float* x, int64_t n) {
  int32_t max = 0;
  for (int64_t i = 0; i < n; ++i) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    max = bits > max ? bits : max;
  }
  return max;
}

// Scale and its inverse for codes up to `limit`, as gemm_common.h defines them.
void code_scale(int32_t max_bits, float limit, float* scale, float* inverse) {
  constexpr int32_t kInfinity = 0x7f800000, kTiny = (127 - 100) << 23;
  *inverse = 0.0f;
  if (max_bits >= kInfinity) {
    const int32_t nan = 0x7fc00000;
    __builtin_memcpy(scale, &nan, 4);
  } else if (max_bits < kTiny) {
    *scale = 0.0f;
  } else {
    float max;
    __builtin_memcpy(&max, &max_bits, 4);
    *scale = max / limit;
    *inverse = limit / max;
  }
}

// One group: codes, sums. A zero inverse stands for "all codes 0" (0 * infinity would be a NaN).
void quantize_group(const float* x,
                    int64_t n,
                    float inverse,
                    float sum_scale,
                    const Rows& rows,
                    int64_t row,
                    int64_t g) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
  alignas(64) int32_t q[32] = {};
  if (inverse != 0.0f) {
    alignas(64) float padded[32] = {};
    if (n < 32) {
      for (int64_t i = 0; i < n; ++i) padded[i] = x[i];
      x = padded;
    }
    for (int i = 0; i < 32; ++i) q[i] = static_cast<int32_t>(x[i] * inverse + kRound - kRound);
  }
  store_codes(q, rows.type, rows.codes(row) + g * 64);
  int32_t low = 0, high = 0;
  for (int i = 0; i < 16; ++i) low += q[i];
  for (int i = 16; i < 32; ++i) high += q[i];
  rows.half_sum(row)[2 * g] = low;
  rows.half_sum(row)[2 * g + 1] = high;
  rows.sum(row)[g] = low + high;
  rows.fsum(row)[g] = static_cast<float>(low + high) * sum_scale;
}

void quantize_row(const float* x, const Rows& rows, int64_t row) {
  const int64_t cols = rows.cols;
  if (rows.type == ActivationType::kF32) {
    float* to = rows.floats(row);
    for (int64_t i = 0; i < cols; ++i) to[i] = x[i];
    for (int64_t i = cols; i < rows.layout.groups * 32; ++i) to[i] = 0.0f;
    return;
  }
  float* scales = rows.scale(row);
  float inverse = 0.0f;
  if (rows.type == ActivationType::kInt16) {
    code_scale(max_magnitude_bits(x, cols), 32512.0f, scales, &inverse);
  }
  for (int64_t g = 0; g < rows.layout.groups; ++g) {
    const int64_t n = cols - g * 32 < 32 ? cols - g * 32 : 32;
    float sum_scale = 1.0f;
    if (rows.type == ActivationType::kInt8) {
      code_scale(max_magnitude_bits(x + g * 32, n), 127.0f, scales + g, &inverse);
      sum_scale = scales[g];
    }
    quantize_group(x + g * 32, n, inverse, sum_scale, rows, row, g);
  }
}

// A function that prepares row `r`; `row` is memory for 2 MiB of floats.
using PrepareFn = void (*)(const void* args, const Rows& rows, int64_t r, float* row);

struct PrepareJob {
  const void* args;
  PrepareFn fn;
  Rows rows;
  unsigned char* scratch;
};

void prepare_body(void* arg, int32_t thread, int32_t num_threads) {
  const PrepareJob& job = *static_cast<const PrepareJob*>(arg);
  const int64_t begin = job.rows.count * thread / num_threads;
  const int64_t end = job.rows.count * (thread + 1) / num_threads;
  float* row = reinterpret_cast<float*>(job.scratch + thread * kScratchBytesPerThread);
  for (int64_t r = begin; r < end; ++r) job.fn(job.args, job.rows, r, row);
}

// `elements` is the op's whole work, as for run_rows. A few rows are not worth a fork: decode of a
// few sequences saves one barrier a matrix.
void run_prepare(const ExecContext& exec,
                 const void* args,
                 PrepareFn fn,
                 const Activations& out,
                 int64_t elements) {
  PrepareJob job = {args, fn, make_rows(out), exec.scratch};
  if (out.rows == 1 || elements < kMinElementsToFork) {
    prepare_body(&job, 0, 1);
  } else {
    exec.parallel.run(exec.parallel.pool, prepare_body, &job);
  }
}

void prepare_as_it_is(const void* args, const Rows& rows, int64_t r, float*) {
  const auto& a = *static_cast<const QuantizeArgs*>(args);
  quantize_row(a.x.data + r * a.x.stride, rows, r);
}

void prepare_normalised(const void* args, const Rows& rows, int64_t r, float* row) {
  const auto& a = *static_cast<const NormQuantizeArgs*>(args);
  const int64_t n = a.x.cols;
  float* x = a.x.data + r * a.x.stride;
  float* y = a.y.data != nullptr ? a.y.data + r * a.y.stride : row;
  if (a.added.data != nullptr && !mutant("kernels_norm_quantize_forgets_sum")) {
    add_row(a.added.data + r * a.added.stride, x, n);
  }
  if (a.kind == NormKind::kRms) {
    rms_norm_row(x, a.weight, a.eps, n, y);
  } else {
    layer_norm_row(x, a.weight, a.bias, a.eps, n, y);
  }
  quantize_row(y, rows, r);
}

void prepare_activated(const void* args, const Rows& rows, int64_t r, float* row) {
  const auto& a = *static_cast<const ActivateQuantizeArgs*>(args);
  const float* x = a.x.data + r * a.x.stride;
  const int64_t n = a.out.cols;
  if (a.function == ActivationFunction::kRelu) {
    relu_row(x, n, row);
  } else {
    silu_and_mul_row(x, x + n, n, row);
  }
  quantize_row(row, rows, r);
}

void run_quantize(const ExecContext& exec, const QuantizeArgs& a) {
  run_prepare(exec, &a, prepare_as_it_is, a.out, a.x.rows * a.x.cols);
}
void run_norm_quantize(const ExecContext& exec, const NormQuantizeArgs& a) {
  run_prepare(exec, &a, prepare_normalised, a.out, a.x.rows * a.x.cols);
}
void run_activate_quantize(const ExecContext& exec, const ActivateQuantizeArgs& a) {
  run_prepare(exec, &a, prepare_activated, a.out, a.x.rows * a.x.cols);
}
