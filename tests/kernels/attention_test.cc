// Attention of every level against softmax in double, over awkward shapes.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kv_testing.h"
#include "tensor/half.h"

namespace quire::testing {
namespace {

float cached(const AttentionArgs& a, int64_t index) {
  if (a.layout.dtype == DType::kF32) return reinterpret_cast<const float*>(a.kv_layer)[index];
  const uint16_t half = reinterpret_cast<const uint16_t*>(a.kv_layer)[index];
  return a.layout.dtype == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

// The plain formula in f32, in the order a first program would take: the yardstick of the error.
void plain_row(const AttentionArgs& a, int32_t seq, int32_t head, int32_t i, float* out) {
  const KvLayout& l = a.layout;
  const int32_t position = a.kv_len[seq] - (a.query_start[seq + 1] - a.query_start[seq]) + i;
  const int32_t first = a.window > 0 ? std::max(0, position - a.window + 1) : 0;
  const float* q = a.q.data + (a.query_start[seq] + i) * a.q.stride + int64_t{head} * l.head_dim;
  const int32_t kv_head = head / (a.num_heads / l.num_kv_heads);
  std::vector<float> w;
  std::vector<int64_t> value_index;
  for (int32_t p = first; p <= position; ++p) {
    const int64_t b = l.block_size;
    const int64_t block = a.block_tables[int64_t{seq} * a.block_table_stride + p / b];
    const int64_t base = (block * l.num_kv_heads + kv_head) * 2 * l.head_dim * b;
    float score = 0;
    for (int32_t d = 0; d < l.head_dim; ++d) score += q[d] * cached(a, base + d * b + p % b);
    w.push_back(score * a.scale);
    value_index.push_back(base + l.head_dim * b + p % b * l.head_dim);
  }
  const float largest = *std::max_element(w.begin(), w.end());
  float total = 0;
  for (float& x : w) {
    x = std::exp(x - largest);
    total += x;
  }
  for (int32_t d = 0; d < l.head_dim; ++d) {
    float sum = 0;
    for (size_t j = 0; j < w.size(); ++j) sum += w[j] / total * cached(a, value_index[j] + d);
    out[d] = sum;
  }
}

std::vector<float> plain(AttentionInputs& inputs) {
  FencedMatrix out = inputs.make_out();
  const AttentionArgs a = inputs.args(out);
  for (int32_t seq = 0; seq < a.num_seqs; ++seq) {
    for (int32_t i = 0; i < a.query_start[seq + 1] - a.query_start[seq]; ++i) {
      for (int32_t head = 0; head < a.num_heads; ++head) {
        float* row = out.row(a.query_start[seq] + i) + int64_t{head} * a.layout.head_dim;
        plain_row(a, seq, head, i, row);
      }
    }
  }
  return out.values();
}

double largest_error(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::fabs(double{got[i]} - want[i]);
    if (!(e <= error)) error = e;  // NaN stays
  }
  return error;
}

double cosine_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return a.empty() ? 0 : 1 - ab / std::sqrt(aa * bb);
}

// Error against double at most twice that of the plain formula in f32, plus 2 ulp of the largest
// output; 1, 2 and 3 threads and a second run the same bits.
void check(const AttentionCase& c, uint64_t seed) {
  SCOPED_TRACE(describe(c) + " seed " + std::to_string(seed));
  AttentionInputs inputs(c, seed);
  Exec one(1);
  Exec two(2);
  Exec three(3);
  const std::vector<float> want = attend(ref_ops(), one, inputs);
  double magnitude = 0;
  for (float x : want) magnitude = std::max(magnitude, std::fabs(double{x}));
  const double allowed = 2 * largest_error(plain(inputs), want) + 2 * kEpsilon * magnitude;
  for (const IsaLevel& level : levels_here()) {
    SCOPED_TRACE(level.name);
    const std::vector<float> got = attend(*level.ops, one, inputs);
    EXPECT_LE(largest_error(got, want), allowed);
    EXPECT_LT(cosine_distance(got, want), 1e-5);
    expect_same_bits(attend(*level.ops, one, inputs), got);
    expect_same_bits(attend(*level.ops, two, inputs), got);
    expect_same_bits(attend(*level.ops, three, inputs), got);
  }
}

std::vector<TestSequence> lengths_around(int32_t b) {
  std::vector<TestSequence> seqs = {{0, 0}, {1, 1}, {b + 1, 0}};
  for (int32_t n : {b - 1, b, b + 1}) {
    if (n > 0) seqs.insert(seqs.end(), {{n, n}, {n, 1}});
  }
  return seqs;
}

TEST(Attention, MatchesDoubleOverHeadCounts) {
  const struct {
    int32_t heads, kv_heads;
  } counts[] = {{1, 1}, {3, 3}, {4, 4}, {8, 8}, {3, 1}, {4, 1}, {8, 1}, {8, 2}, {9, 3}, {8, 4}};
  uint64_t seed = 1;
  for (const auto& n : counts) {
    check({.heads = n.heads,
           .kv_heads = n.kv_heads,
           .dim = 32,
           .seqs = {{37, 5}, {97, 1}, {70, 70}, {513, 1}}},
          seed++);
  }
}

TEST(Attention, MatchesDoubleOverHeadDims) {
  uint64_t seed = 100;
  for (int32_t dim : {32, 64, 72, 80, 96, 128, 256, 8, 40, 1, 7, 33}) {
    check({.dim = dim, .seqs = {{131, 67}, {65, 2}, {1, 1}, {67, 1}}}, seed++);
  }
}

TEST(Attention, MatchesDoubleOverBlockSizesAndLengthsAroundThem) {
  uint64_t seed = 200;
  for (int32_t b : {1, 2, 4, 8, 16, 32, 64, 128, 256}) {
    check({.dim = 32, .block_size = b, .seqs = lengths_around(b)}, seed++);
  }
}

TEST(Attention, MatchesDoubleOverKvTypes) {
  uint64_t seed = 300;
  for (DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int32_t b : {1, 16, 128}) {
      check({.dim = 80, .block_size = b, .dtype = type, .seqs = {{150, 20}, {200, 1}}}, seed++);
    }
  }
}

TEST(Attention, MatchesDoubleWithWindows) {
  uint64_t seed = 400;
  for (int32_t window : {1, 2, 15, 16, 63, 64, 65, 100, 600}) {
    for (int32_t b : {2, 16, 256}) {
      check({.block_size = b, .window = window, .seqs = {{130, 130}, {713, 1}, {300, 3}}}, seed++);
    }
  }
}

TEST(Attention, MatchesDoubleOverManyPartials) {
  check({.heads = 3, .kv_heads = 1, .seqs = {{1100, 1}, {513, 40}, {1100, 33}, {512, 1}}}, 500);
  check({.heads = 3, .kv_heads = 1, .seqs = {{2500, 1}}}, 501);
  check({.heads = 8, .kv_heads = 1, .dim = 128, .seqs = {{1537, 2}}}, 502);
}

TEST(Attention, MatchesDoubleInAMixedStep) {
  check({.heads = 9,
         .kv_heads = 3,
         .seqs = {{64, 64}, {700, 1}, {33, 1}, {0, 0}, {129, 100}, {1, 1}, {90, 7}}},
        600);
}

TEST(Attention, DoesNothingForAStepWithoutRows) {
  check({.seqs = {}}, 700);
  check({.seqs = {{0, 0}}}, 701);
  check({.seqs = {{20, 0}, {0, 0}}}, 702);
}

TEST(Attention, HandlesMoreRowsThanARowTileInOneToken) {
  check({.heads = 128, .kv_heads = 1, .dim = 16, .seqs = {{80, 2}}}, 800);
}

// A sharp softmax: scores far apart, weights that underflow.
TEST(Attention, KeepsItsAccuracyWhenScoresAreFarApart) {
  AttentionCase c{.dim = 64, .dtype = DType::kF32, .seqs = {{700, 3}}};
  AttentionInputs inputs(c, 900);
  Exec one(1);
  for (const IsaLevel& level : levels_here()) {
    FencedMatrix out = inputs.make_out();
    AttentionArgs args = inputs.args(out);
    args.scale = 30;
    FencedMatrix want = inputs.make_out();
    AttentionArgs ref_args = args;
    ref_args.out = want.view();
    ref_ops().attention(one.context(), ref_args);
    QUIRE_RUN_OP(*level.ops, attention, one, args);
    // Scores of about 1000 are off by 1e-4, and so are the weights' ratios.
    EXPECT_LE(largest_error(out.values(), want.values()), 3e-3);
  }
}

}  // namespace
}  // namespace quire::testing
