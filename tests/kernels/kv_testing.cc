#include "kernels/kv_testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace quire::testing {
namespace {

constexpr int32_t kGarbage = 0x7fff0000;

int32_t div_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

int64_t total_queries(const AttentionCase& c) {
  int64_t n = 0;
  for (const TestSequence& s : c.seqs) n += s.num_queries;
  return n;
}

void fill_row(FencedMatrix& m, int64_t row, uint64_t seed, float scale) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, scale);
  for (int64_t c = 0; c < m.cols(); ++c) m.at(row, c) = normal(random);
}

// 0 .. count - 1 in random order, or in runs of `length` from the last to the first, so that no run
// continues another.
std::vector<int32_t> block_ids(int32_t count, int32_t length, uint64_t seed) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  if (length == 1) {
    std::mt19937_64 random(seed);
    std::shuffle(ids.begin(), ids.end(), random);
    return ids;
  }
  for (int32_t i = 0; i < count; ++i) {
    const int32_t first = std::max(0, count - (i / length + 1) * length);
    ids[i] = first + i % length;
  }
  return ids;
}

}  // namespace

std::string describe(const AttentionCase& c) {
  std::string text = std::string(dtype_info(c.dtype).name) + " H" + std::to_string(c.heads) + " K" +
                     std::to_string(c.kv_heads) + " D" + std::to_string(c.dim) + " B" +
                     std::to_string(c.block_size) + " window " + std::to_string(c.window) +
                     " runs of " + std::to_string(c.run_blocks) + " (kv_len, queries):";
  for (const TestSequence& s : c.seqs) {
    text += " (" + std::to_string(s.kv_len) + ", " + std::to_string(s.num_queries) + ")";
  }
  return text;
}

AttentionInputs::AttentionInputs(const AttentionCase& c, uint64_t seed)
    : case_(c),
      layout_{c.dtype, c.block_size, c.kv_heads, c.dim},
      tokens_(total_queries(c)),
      q_(total_queries(c), c.heads * c.dim, 3) {
  int32_t num_blocks = 3;  // a few that nobody owns
  for (const TestSequence& s : c.seqs) {
    num_blocks += div_up(s.kv_len, c.block_size);
    table_stride_ = std::max(table_stride_, div_up(s.kv_len, c.block_size) + 2);
  }
  const std::vector<int32_t> ids = block_ids(num_blocks, c.run_blocks, seed);
  tables_.assign(c.seqs.size() * table_stride_, kGarbage);
  kv_.assign(static_cast<size_t>(num_blocks * kv_block_bytes(layout_)), 0xff);  // NaN in all types
  query_start_.push_back(0);
  size_t next_id = 0;
  for (int32_t s = 0; s < static_cast<int32_t>(c.seqs.size()); ++s) {
    const TestSequence& seq = c.seqs[s];
    for (int32_t b = 0; b < div_up(seq.kv_len, c.block_size); ++b) {
      tables_[s * table_stride_ + b] = ids[next_id++];
    }
    FencedMatrix k(1, c.kv_heads * c.dim);
    FencedMatrix v(1, c.kv_heads * c.dim);
    for (int32_t p = 0; p < seq.kv_len; ++p) {
      const uint64_t row_seed = seed * 1000003 + s * 100003 + p;
      fill_row(k, 0, row_seed * 3, 1);
      fill_row(v, 0, row_seed * 3 + 1, 1);
      write(s, p, k, v);
      const int32_t query = p - (seq.kv_len - seq.num_queries);
      if (query >= 0) fill_row(q_, query_start_.back() + query, row_seed * 3 + 2, 1.5F);
    }
    query_start_.push_back(query_start_.back() + seq.num_queries);
    kv_len_.push_back(seq.kv_len);
  }
}

int64_t AttentionInputs::slot(int32_t seq, int32_t position) const {
  const int32_t b = case_.block_size;
  return int64_t{tables_[seq * table_stride_ + position / b]} * b + position % b;
}

void AttentionInputs::write(int32_t seq, int32_t position, FencedMatrix& k, FencedMatrix& v) {
  static Exec exec(1);
  const int64_t at = slot(seq, position);
  int64_t overflows = 0;
  ref_ops().kv_write(exec.context(),
                     {k.const_view(), v.const_view(), &at, layout_, kv_.data(), &overflows});
}

void AttentionInputs::set_values(int32_t seq, int32_t position, float x) {
  const int64_t at = slot(seq, position);
  const int64_t b = case_.block_size;
  for (int64_t head = 0; head < case_.kv_heads; ++head) {
    const int64_t base = (at / b * case_.kv_heads + head) * 2 * case_.dim * b;
    for (int64_t d = 0; d < case_.dim; ++d) {
      const int64_t index = base + case_.dim * b + at % b * case_.dim + d;
      std::memcpy(kv_.data() + index * 4, &x, 4);
    }
  }
}

AttentionArgs AttentionInputs::args(FencedMatrix& out) {
  return {.q = q_.const_view(),
          .num_heads = case_.heads,
          .layout = layout_,
          .kv_layer = kv_.data(),
          .num_seqs = static_cast<int32_t>(case_.seqs.size()),
          .query_start = query_start_.data(),
          .kv_len = kv_len_.data(),
          .block_tables = tables_.data(),
          .block_table_stride = table_stride_,
          .scale = 1 / std::sqrt(static_cast<float>(case_.dim)),
          .window = case_.window,
          .out = out.view()};
}

std::vector<float> attend(const OpTable& ops, Exec& exec, AttentionInputs& inputs) {
  FencedMatrix out = inputs.make_out();
  QUIRE_RUN_OP(ops, attention, exec, inputs.args(out));
  out.expect_intact();
  return out.values();
}

}  // namespace quire::testing
