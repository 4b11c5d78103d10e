// Attention, part 3: the list of a step's jobs, and the ops.

// clang-format off: each uses those above it
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/attention_standard.inl"
// clang-format on

template <class T>
QUIRE_INLINE void run_any_job(const AttentionPlan& p,
                              const AttentionJob& job,
                              unsigned char* scratch) {
  if (p.phase == AttentionPhase::kAll) {
    run_job<T>(p, job, scratch);
  } else {
    run_standard_job<T>(p, job, scratch);
  }
}

inline void run_jobs(void* arg, int32_t thread, int32_t) {
  auto& p = *static_cast<AttentionPlan*>(arg);
  unsigned char* scratch = p.scratch + thread * kScratchBytesPerThread;
  for (;;) {
    const int64_t i = __atomic_fetch_add(&p.next_job, 1, __ATOMIC_RELAXED);
    if (i >= p.num_jobs) return;
    const DType type = p.args->layout.dtype;
    if (type == DType::kF32) {
      run_any_job<float>(p, p.jobs[i], scratch);
    } else if (type == DType::kF16) {
      run_any_job<F16>(p, p.jobs[i], scratch);
    } else {
      run_any_job<BF16>(p, p.jobs[i], scratch);
    }
  }
}

// The whole job of rows [row_begin, row_end): all partials with a key that one of them sees.
inline AttentionJob whole_job(
    const AttentionPlan& p, int32_t seq, int32_t head, int32_t row_begin, int32_t row_end) {
  const int32_t first = first_visible(*p.args, row_position(p, seq, row_begin));
  const int32_t end = row_position(p, seq, row_end - 1) + 1;
  return {seq,
          head,
          row_begin,
          row_end,
          first / kAttentionPartial,
          (end + kAttentionPartial - 1) / kAttentionPartial,
          -1};
}

// Calls fn(job) for every job; of a sequence, those of later rows (more keys) first.
template <class Fn>
inline void for_each_job(const AttentionPlan& p, Fn fn) {
  const AttentionArgs& a = *p.args;
  for (int32_t seq = 0; seq < a.num_seqs; ++seq) {
    const int32_t rows = num_queries(a, seq) * p.group;
    for (int32_t head = 0; head < a.layout.num_kv_heads; ++head) {
      for (int32_t tile = (rows + kRowTile - 1) / kRowTile - 1; tile >= 0; --tile) {
        fn(whole_job(p, seq, head, tile * kRowTile, smaller(rows, (tile + 1) * kRowTile)));
      }
    }
  }
}

struct JobCounts {
  int64_t jobs, partials, max_rows, max_partials;
};

inline JobCounts count_jobs(const AttentionPlan& p) {
  JobCounts n{0, 0, 0, 0};
  for_each_job(p, [&n](const AttentionJob& job) {
    const int64_t partials = job.part_end - job.part_begin;
    n.jobs += 1;
    n.partials += partials;
    if (job.row_end - job.row_begin > n.max_rows) n.max_rows = job.row_end - job.row_begin;
    if (partials > n.max_partials) n.max_partials = partials;
  });
  return n;
}

// Cuts every job into pieces of `chunk` partials.
inline void plan_split_jobs(AttentionPlan* p, int32_t chunk) {
  int32_t slot = 0;
  int32_t num_splits = 0;
  for_each_job(*p, [&](AttentionJob job) {
    const int32_t begin = job.part_begin;
    const int32_t end = job.part_end;
    if (end - begin > chunk) {
      job.split = num_splits++;
      p->splits[job.split] = {(end - begin + chunk - 1) / chunk, begin, end, slot};
      slot += end - begin;
    }
    for (int32_t part = begin; part < end; part += chunk) {
      job.part_begin = part;
      job.part_end = smaller(end, part + chunk);
      p->jobs[p->num_jobs++] = job;
    }
  });
}

// Fewer jobs than this for each thread and some thread may wait long for another.
constexpr int64_t kJobsPerThread = 4;

inline void run_plan(const ExecContext& exec, AttentionPlan* p) {
  p->next_job = 0;
  if (p->num_jobs == 1) {
    run_jobs(p, 0, 1);
  } else if (p->num_jobs > 1) {
    exec.parallel.run(exec.parallel.pool, run_jobs, p);
  }
}

QUIRE_INLINE AttentionPlan make_plan(const ExecContext& exec, const AttentionArgs& a) {
  if (a.layout.head_dim > kMaxHeadDim) __builtin_trap();
  AttentionPlan p{};
  p.args = &a;
  p.scratch = exec.scratch;
  p.group = a.num_heads / a.layout.num_kv_heads;
  return p;
}

// As many jobs at a time as the plan's memory holds: one time, but for thousands of sequences.
inline void run_whole_jobs(const ExecContext& exec, AttentionPlan* p) {
  constexpr int64_t kMaxJobs = kPlanBytes / static_cast<int64_t>(sizeof(AttentionJob));
  unsigned char* at = exec.scratch + kScratchBytesPerThread - kPlanBytes;
  p->jobs = reinterpret_cast<AttentionJob*>(at);
  for_each_job(*p, [&](const AttentionJob& job) {
    p->jobs[p->num_jobs++] = job;
    if (p->num_jobs == kMaxJobs) {
      run_plan(exec, p);
      p->num_jobs = 0;
    }
  });
  run_plan(exec, p);
}

inline void attention_all(const ExecContext& exec, const AttentionArgs& a) {
  AttentionPlan p = make_plan(exec, a);
  const JobCounts n = count_jobs(p);
  const int64_t threads = exec.parallel.num_threads;
  p.slot_bytes =
      round_up(n.max_rows * 4, 64) * 2 + n.max_rows * round_up(a.layout.head_dim, kLanes) * 4;
  p.slot_bytes = round_up(p.slot_bytes, 64);
  const bool split = threads > 1 && n.jobs < kJobsPerThread * threads && n.max_partials > 1 &&
                     n.partials <= slots_per_thread(p.slot_bytes) * threads &&
                     n.partials * static_cast<int64_t>(sizeof(AttentionJob)) <= kPlanBytes / 2;
  if (!split) {
    run_whole_jobs(exec, &p);
    return;
  }
  unsigned char* at = exec.scratch + kScratchBytesPerThread - kPlanBytes;
  p.splits = take<AttentionSplit>(at, n.jobs);
  p.jobs = take<AttentionJob>(at, n.partials);
  const int64_t pieces = kJobsPerThread * threads;
  plan_split_jobs(&p, static_cast<int32_t>((n.partials + pieces - 1) / pieces));
  run_plan(exec, &p);
}

inline void attention_phase(const ExecContext& exec,
                            const StandardAttentionArgs& a,
                            AttentionPhase phase) {
  AttentionPlan p = make_plan(exec, a.attention);
  p.phase = phase;
  p.standard = &a;
  run_whole_jobs(exec, &p);
}
