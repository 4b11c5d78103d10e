// Standard attention: scores, softmax and values as three ops with everything between them in
// memory. They go over the same jobs and tiles as attention (attention.inl) and call the same
// functions on each, so the bits are the same; only where scores and weights stand differs.

// The rows of a job in the memory of StandardAttentionArgs: [K][T][H/K].
inline int64_t standard_row(const AttentionPlan& p, const AttentionJob& job) {
  const AttentionArgs& a = *p.args;
  const int64_t tokens = a.query_start[a.num_seqs] - a.query_start[0];
  const int64_t token = a.query_start[job.seq] - a.query_start[0];
  return (job.head * tokens + token) * p.group + job.row_begin;
}

QUIRE_INLINE float* row_of(const MatF& m, int64_t row) { return m.data + row * m.stride; }

// fn(group, tile, next, first token, begin, end) for every tile of a partial and every group of
// rows that see it: the group's weights are its rows' part of `scores`.
template <class T, class Fn>
inline void for_each_group(const AttentionPlan& p,
                           const AttentionJob& job,
                           const JobMemory& memory,
                           const RowStates& states,
                           int32_t partial,
                           Fn fn) {
  const MatF& scores = p.standard->scores;
  const int64_t first_row = standard_row(p, job);
  for_each_tile<T>(
      p,
      job,
      memory,
      partial,
      [&](const auto& tile, const auto& next, int32_t t, int row_begin, int row_end) QUIRE_LAMBDA {
        const int step = group_rows(row_begin, row_end);
        for (int row = row_begin; row < row_end; row += step) {
          RowGroup g;
          int begin;
          int end;
          find_group(states, t, row, smaller(step, row_end - row), &g, &begin, &end);
          g.weights = row_of(scores, first_row + row) + t;
          g.stride = scores.stride;
          fn(g, tile, next, t, begin, end);
        }
      });
}

template <class T>
inline void score_job(const AttentionPlan& p, const AttentionJob& job, const JobMemory& memory) {
  const RowStates states = row_states(p, memory);
  for (int32_t part = job.part_begin; part < job.part_end; ++part) {
    for_each_group<T>(
        p,
        job,
        memory,
        states,
        part,
        [&](RowGroup& g, const auto& tile, const auto& next, int32_t, int begin, int end)
            QUIRE_LAMBDA { score_tokens(states, g, tile, next, begin, end); });
  }
}

inline void softmax_job(const AttentionPlan& p, const AttentionJob& job, const JobMemory& memory) {
  const StandardAttentionArgs& a = *p.standard;
  for (int r = 0; r < job.row_end - job.row_begin; ++r) {
    const int64_t row = standard_row(p, job) + r;
    const int32_t first = memory.first_key[r];
    const int32_t end = memory.end_key[r];
    for (int32_t part = job.part_begin; part < job.part_end; ++part) {
      float m = -__builtin_inff();
      float l = 0;
      const int32_t part_end = smaller((part + 1) * kAttentionPartial, end);
      for (int32_t t = larger(part * kAttentionPartial, first / kTile * kTile); t < part_end;
           t += kTile) {
        const int lo = larger(0, first - t);
        const int hi = smaller(kTile, end - t);
        row_of(a.factors, row)[t / kTile] = softmax_tile(row_of(a.scores, row) + t,
                                                         lo / kLanes * kLanes,
                                                         static_cast<int>(round_up(hi, kLanes)),
                                                         lo,
                                                         hi,
                                                         &m,
                                                         &l);
      }
      row_of(a.totals, row)[2 * part] = m;
      row_of(a.totals, row)[2 * part + 1] = l;
    }
  }
}

template <class T>
inline void value_job(const AttentionPlan& p, const AttentionJob& job, const JobMemory& memory) {
  const StandardAttentionArgs& a = *p.standard;
  const RowStates states = row_states(p, memory);
  const int rows = job.row_end - job.row_begin;
  const int64_t first_row = standard_row(p, job);
  clear_totals(memory, rows);
  for (int32_t part = job.part_begin; part < job.part_end; ++part) {
    clear_partial(states, rows);
    for_each_group<T>(p,
                      job,
                      memory,
                      states,
                      part,
                      [&](RowGroup& g, const auto& tile, const auto&, int32_t t, int, int)
                          QUIRE_LAMBDA {
                            for (int r = 0; r < g.count; ++r) {
                              g.factor[r] = row_of(a.factors, first_row + g.row + r)[t / kTile];
                            }
                            for (int i = 0; i < tile.num_segments; ++i)
                              add_segment(states, g, tile.segments[i]);
                          });
    for (int r = 0; r < rows; ++r) {
      memory.m[r] = row_of(a.totals, first_row + r)[2 * part];
      memory.l[r] = row_of(a.totals, first_row + r)[2 * part + 1];
    }
    merge_rows(memory, rows, states.padded_dim);
  }
  write_rows(p, job, memory);
}

template <class T>
inline void run_standard_job(const AttentionPlan& p,
                             const AttentionJob& job,
                             unsigned char* scratch) {
  const JobMemory memory = job_memory(scratch, round_up(p.args->layout.head_dim, kLanes));
  load_rows(p, job, memory);
  if (p.phase == AttentionPhase::kScores) {
    score_job<T>(p, job, memory);
  } else if (p.phase == AttentionPhase::kSoftmax) {
    softmax_job(p, job, memory);
  } else {
    value_job<T>(p, job, memory);
  }
}
