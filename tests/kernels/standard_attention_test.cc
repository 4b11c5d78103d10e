// Attention in three ops: on every level the bits of the one op, and each op near double precision.
#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/attention.h"
#include "kernels/kv_testing.h"

namespace quire::testing {
namespace {

// Memory for scores and what belongs to them; NaN where nothing was written.
struct Scores {
  Scores(const AttentionCase& c, int64_t tokens) {
    int64_t keys = kAttentionTile;
    for (const TestSequence& s : c.seqs) keys = std::max<int64_t>(keys, s.kv_len);
    const int64_t tiles = (keys + kAttentionTile - 1) / kAttentionTile;
    const int64_t partials = (keys + kAttentionPartial - 1) / kAttentionPartial;
    rows = tokens * c.heads;
    scores = FencedMatrix(rows, tiles * kAttentionTile, 16);
    factors = FencedMatrix(rows, tiles);
    totals = FencedMatrix(rows, 2 * partials);
    for (FencedMatrix* m : {&scores, &factors, &totals}) {
      for (int64_t r = 0; r < rows; ++r) {
        std::fill_n(m->row(r), m->cols(), std::nanf(""));
      }
    }
  }
  StandardAttentionArgs args(const AttentionArgs& attention) {
    return {attention, scores.view(), factors.view(), totals.view()};
  }
  void expect_intact() const {
    scores.expect_intact();
    factors.expect_intact();
    totals.expect_intact();
  }
  int64_t rows = 0;
  FencedMatrix scores{0, 1}, factors{0, 1}, totals{0, 1};
};

std::vector<float> attend_apart(const OpTable& ops, Exec& exec, AttentionInputs& inputs) {
  FencedMatrix out = inputs.make_out();
  Scores scores(inputs.shape(), inputs.tokens());
  const StandardAttentionArgs args = scores.args(inputs.args(out));
  QUIRE_RUN_OP(ops, attention_scores, exec, args);
  QUIRE_RUN_OP(ops, attention_softmax, exec, args);
  QUIRE_RUN_OP(ops, attention_values, exec, args);
  out.expect_intact();
  scores.expect_intact();
  return out.values();
}

// Shapes with everything that can be awkward: head counts, dims, block sizes, types, windows, more
// than one partial, mixed steps, nothing to do.
std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all = {
      {.heads = 9, .kv_heads = 3, .seqs = {{64, 64}, {700, 1}, {33, 1}, {0, 0}, {129, 100}}},
      {.heads = 3, .kv_heads = 1, .seqs = {{1100, 1}, {513, 40}, {1100, 33}, {512, 1}}},
      {.heads = 8, .kv_heads = 1, .dim = 128, .seqs = {{1537, 2}}},
      {.heads = 128, .kv_heads = 1, .dim = 16, .seqs = {{80, 2}}},
      {.heads = 1, .kv_heads = 1, .dim = 33, .seqs = {{1, 1}, {65, 65}, {64, 1}}},
      {.seqs = {}},
      {.seqs = {{20, 0}, {0, 0}}}};
  for (int32_t dim : {1, 7, 40, 72, 80, 256}) {
    all.push_back({.dim = dim, .seqs = {{131, 67}, {65, 2}, {1, 1}}});
  }
  for (int32_t b : {1, 4, 32, 128, 256}) {
    for (DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
      all.push_back({.block_size = b, .dtype = type, .seqs = {{150, 20}, {200, 1}}});
    }
  }
  for (int32_t window : {1, 16, 65, 600}) {
    all.push_back({.block_size = 2, .window = window, .seqs = {{130, 130}, {713, 1}, {1300, 7}}});
    all.push_back({.window = window, .seqs = {{713, 33}, {300, 3}}});
  }
  return all;
}

TEST(StandardAttention, GivesTheBitsOfTheOneOp) {
  uint64_t seed = 1;
  Exec one(1), three(3);
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(describe(c));
    AttentionInputs inputs(c, seed++);
    for (const IsaLevel& level : levels_here()) {
      SCOPED_TRACE(level.name);
      const std::vector<float> want = attend(*level.ops, one, inputs);
      expect_same_bits(attend_apart(*level.ops, one, inputs), want);
      expect_same_bits(attend_apart(*level.ops, three, inputs), want);
    }
  }
}

// |got - want| <= allowed(want), but for what no row sees, where a level may have left out what the
// reference writes, or written more: scores (NaN) and totals (-infinity and 0).
void expect_close(const FencedMatrix& got,
                  const FencedMatrix& want,
                  const std::function<double(double)>& allowed) {
  const std::vector<float> a = got.values(), b = want.values();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(b[i]) || (std::isnan(a[i]) && b[i] == 0)) continue;
    ASSERT_TRUE(a[i] == b[i] || std::fabs(double{a[i]} - b[i]) <= allowed(b[i]))
        << "element " << i << ": got " << a[i] << ", want " << b[i];
  }
}

// Each op of each level on what the reference's op before it gave.
TEST(StandardAttention, EachOpIsNearDoublePrecision) {
  uint64_t seed = 1;
  Exec one(1), two(2);
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(describe(c));
    AttentionInputs inputs(c, seed++);
    FencedMatrix out = inputs.make_out();
    Scores scored(c, inputs.tokens());
    ref_ops().attention_scores(one.context(), scored.args(inputs.args(out)));
    Scores weighed = scored;
    ref_ops().attention_softmax(one.context(), weighed.args(inputs.args(out)));
    ref_ops().attention_values(one.context(), weighed.args(inputs.args(out)));
    for (const IsaLevel& level : levels_here()) {
      SCOPED_TRACE(level.name);
      Scores s(c, inputs.tokens());
      FencedMatrix got = inputs.make_out();
      QUIRE_RUN_OP(*level.ops, attention_scores, two, s.args(inputs.args(got)));
      expect_close(s.scores, scored.scores, [&](double) { return 1e-6 * (c.dim + 30); });
      s = scored;
      QUIRE_RUN_OP(*level.ops, attention_softmax, two, s.args(inputs.args(got)));
      const auto relative = [](double want) { return 1e-5 * std::fabs(want) + 1e-37; };
      expect_close(s.scores, weighed.scores, relative);
      expect_close(s.factors, weighed.factors, relative);
      expect_close(s.totals, weighed.totals, relative);
      s = weighed;
      QUIRE_RUN_OP(*level.ops, attention_values, two, s.args(inputs.args(got)));
      expect_close(got, out, [](double) { return 1e-5; });
    }
  }
}

// The three together against the one, where both are the reference's.
TEST(StandardAttention, ReferenceAgreesWithItsOneOp) {
  Exec one(1);
  uint64_t seed = 1;
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(describe(c));
    AttentionInputs inputs(c, seed++);
    const std::vector<float> want = attend(ref_ops(), one, inputs);
    expect_near(attend_apart(ref_ops(), one, inputs), want, std::vector<double>(want.size(), 2e-6));
  }
}

}  // namespace
}  // namespace quire::testing
