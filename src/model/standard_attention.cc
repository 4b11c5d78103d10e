#include "model/standard_attention.h"

#include <algorithm>

#include "base/mutants.h"
#include "kernels/attention.h"

namespace quire {
namespace {

constexpr int64_t kPadding = 16;  // floats, so that rows do not all fall into the same cache sets

// Floats of each kind for a row of `keys` keys.
struct RowShape {
  explicit RowShape(int64_t keys)
      : scores((keys + kAttentionTile - 1) / kAttentionTile * kAttentionTile + kPadding),
        factors((keys + kAttentionTile - 1) / kAttentionTile),
        totals(2 * ((keys + kAttentionPartial - 1) / kAttentionPartial)) {}
  int64_t bytes() const { return (scores + factors + totals) * 4; }
  int64_t scores, factors, totals;
};

struct Memory {
  float* data;
  int64_t bytes;
};

Memory allocate(Step& f) {
  const int64_t row = RowShape(f.config.max_position).bytes();
  const int64_t token = f.config.num_heads * row;
  const int64_t bytes = std::max(token, std::min(f.context.score_bytes, f.num_tokens * token));
  return {reinterpret_cast<float*>(f.context.workspace->bytes(bytes)), bytes};
}

void run(Step& f, const AttentionArgs& args, int64_t keys, const Memory& memory) {
  const RowShape shape(keys);
  const int64_t tokens = args.query_start[args.num_seqs] - args.query_start[0];
  const int64_t rows = tokens * args.num_heads;
  QUIRE_CHECK(rows * shape.bytes() <= memory.bytes);
  float* const factors = memory.data + rows * shape.scores;
  const StandardAttentionArgs standard{
      args,
      {memory.data, rows, shape.scores, shape.scores},
      {factors, rows, shape.factors, shape.factors},
      {factors + rows * shape.factors, rows, shape.totals, shape.totals}};
  f.ops().attention_scores(f.exec(), standard);
  f.ops().attention_softmax(f.exec(), standard);
  f.ops().attention_values(f.exec(), standard);
}

// Sequences [first, first + count) of the step.
AttentionArgs some_sequences(const AttentionArgs& args, int32_t first, int32_t count) {
  AttentionArgs some = args;
  some.num_seqs = count;
  some.query_start += first;
  some.kv_len += first;
  some.block_tables += int64_t{first} * args.block_table_stride;
  return some;
}

// One sequence whose scores do not fit, a few of its tokens at a time.
void run_in_parts(Step& f, const AttentionArgs& sequence, const Memory& memory) {
  const int32_t begin = sequence.query_start[0], end = sequence.query_start[1];
  const int64_t keys = sequence.kv_len[0];
  const int64_t most = memory.bytes / (RowShape(keys).bytes() * sequence.num_heads);
  QUIRE_CHECK(most > 0);
  for (int32_t first = begin; first < end;) {
    const auto last = static_cast<int32_t>(std::min<int64_t>(end, first + most));
    const int32_t query_start[] = {first, last};
    const int32_t rest = mutant("exactness_part_sees_the_rest") ? 0 : end - last;
    const int32_t kv_len[] = {sequence.kv_len[0] - rest};
    AttentionArgs part = sequence;
    part.query_start = query_start;
    part.kv_len = kv_len;
    run(f, part, kv_len[0], memory);
    first = last;
  }
}

}  // namespace

void standard_attention(Step& f, const AttentionArgs& args) {
  Workspace::Scope scope(*f.context.workspace);
  const Memory memory = allocate(f);
  for (int32_t first = 0; first < args.num_seqs;) {
    int64_t keys = 0;
    int32_t count = 0;
    for (; first + count < args.num_seqs; ++count) {
      const int64_t longest = std::max<int64_t>(keys, args.kv_len[first + count]);
      const int64_t tokens = args.query_start[first + count + 1] - args.query_start[first];
      if (tokens * args.num_heads * RowShape(longest).bytes() > memory.bytes) break;
      keys = longest;
    }
    if (count > 0) {
      run(f, some_sequences(args, first, count), keys, memory);
      first += count;
    } else {
      run_in_parts(f, some_sequences(args, first, 1), memory);
      ++first;
    }
  }
}

}  // namespace quire
