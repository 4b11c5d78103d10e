// What every op of a level shares: exp, a loop over rows on all threads. After simd_<level>.inl.

// exp(x) = 2^n * e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and e^r = 1 + r + r^2 Q(r), Q of
// degree 4 fitted for least relative error (3e-9). `t` becomes n + 1.5 * 2^23.
QUIRE_INLINE F32 exp_fraction(F32 x, F32* t) {
  const F32 round = set1(0x1.8p23F);
  *t = fma(x, set1(0x1.715476p+0F), round);
  const F32 n = sub(*t, round);
  F32 r = fma(n, set1(-0.693359375F), x);  // exact: 9 bits of ln 2 times at most 8 of n
  r = fma(n, set1(2.12194440e-4F), r);
  F32 q = set1(0.00138144661F);
  q = fma(q, r, set1(0.00836878167F));
  q = fma(q, r, set1(0.0416683943F));
  q = fma(q, r, set1(0.166665201F));
  q = fma(q, r, set1(0.499999934F));
  return add(fma(mul(r, r), q, r), set1(1.0F));
}

// At most 2 ulp off for every x; NaN stays NaN.
QUIRE_INLINE F32 exp(F32 x) {
  x = max(set1(-104.0F), min(set1(89.0F), x));
  F32 t;
  const F32 p = exp_fraction(x, &t);
  return scale_by_any_power(p, t);
}

// For x <= 0, as softmax needs it: 0 where x < -87 (a denormal weight is worth nothing, and costs).
QUIRE_INLINE F32 exp_weight(F32 x) {
  const F32 lowest = set1(-87.0F);
  const F32 inside = max(lowest, x);
  F32 t;
  const F32 p = exp_fraction(inside, &t);
  return if_less(x, lowest, set1(0), scale_by_power(p, t));
}

// A function over rows [begin, end) of an op.
using RowsFn = void (*)(const void* args, int64_t begin, int64_t end);
struct RowsJob {
  const void* args;
  RowsFn fn;
  int64_t rows;
};

inline void run_rows_on_thread(void* arg, int32_t thread, int32_t num_threads) {
  const auto& job = *static_cast<const RowsJob*>(arg);
  const int64_t begin = job.rows * thread / num_threads;
  const int64_t end = job.rows * (thread + 1) / num_threads;
  if (begin < end) job.fn(job.args, begin, end);
}

// Waking the pool costs about as much as 8192 simple elements on one thread.
constexpr int64_t kMinElementsToFork = 8192;

// Splits rows over the threads; `elements` is the op's whole work.
inline void run_rows(
    const ExecContext& exec, const void* args, RowsFn fn, int64_t rows, int64_t elements) {
  if (rows <= 0) return;
  if (rows == 1 || exec.parallel.num_threads == 1 || elements < kMinElementsToFork) {
    fn(args, 0, rows);
    return;
  }
  RowsJob job{args, fn, rows};
  exec.parallel.run(exec.parallel.pool, run_rows_on_thread, &job);
}
