// Norms, RoPE, SiLU, ReLU, add and gather of every level against the reference, over awkward
// shapes; the same bits for every number of threads and wherever a row stands.
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/op_testing.h"

namespace quire::testing {
namespace {

constexpr float kEps = 1e-5F;
const int64_t kRows[] = {0, 1, 2, 5, 37};
const int64_t kCols[] = {1, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257, 576, 2049};

std::vector<float> weights(std::mt19937_64& random, int64_t n) {
  FencedMatrix w(1, n, 0);
  return w.fill(random).values();
}

// An op on a matrix: runs it on `x` (and what the closure holds), result in `y`.
using Run = std::function<void(const OpTable&, Exec&, FencedMatrix& x, FencedMatrix& y)>;
// The largest error that an element may have, given the inputs, the row and the wanted value.
using Tolerance = std::function<double(FencedMatrix& x, int64_t row, int64_t col, double want)>;

// Every level against ref; every row alone, and 1, 2, 3 threads, the same bits.
void check_rows(FencedMatrix& x, int64_t y_cols, const Run& run, const Tolerance& tolerance) {
  Exec one(1);
  FencedMatrix want(x.rows(), y_cols);
  FencedMatrix x_ref = x;
  run(ref_ops(), one, x_ref, want);
  std::vector<double> allowed;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < y_cols; ++c) allowed.push_back(tolerance(x, r, c, want.at(r, c)));
  }
  for (const IsaLevel& level : levels_here()) {
    SCOPED_TRACE(std::string(level.name) + ", " + std::to_string(x.rows()) + " rows of " +
                 std::to_string(x.cols()));
    FencedMatrix got(x.rows(), y_cols);
    FencedMatrix x_got = x;
    run(*level.ops, one, x_got, got);
    x_got.expect_intact();
    got.expect_intact();
    expect_near(got.values(), want.values(), allowed);
    for (int threads : {2, 3}) {
      Exec exec(threads);
      FencedMatrix again(x.rows(), y_cols);
      FencedMatrix x_again = x;
      run(*level.ops, exec, x_again, again);
      expect_same_bits(again.values(), got.values());
    }
    if (x.rows() < 2) continue;
    const int64_t last = x.rows() - 1;
    FencedMatrix alone(1, x.cols(), 3);
    for (int64_t c = 0; c < x.cols(); ++c) alone.at(0, c) = x.at(last, c);
    FencedMatrix got_alone(1, y_cols, 0);
    run(*level.ops, one, alone, got_alone);
    const std::vector<float> all = got.values();
    expect_same_bits(got_alone.values(), {all.end() - y_cols, all.end()});
  }
}

double largest(FencedMatrix& x, int64_t row) {
  double max = 0;
  for (int64_t c = 0; c < x.cols(); ++c) max = std::max(max, std::fabs(double{x.at(row, c)}));
  return max;
}

TEST(RmsNorm, MatchesReferenceOverAwkwardShapes) {
  for (int64_t rows : kRows) {
    for (int64_t cols : kCols) {
      std::mt19937_64 random(rows * 1000 + cols);
      FencedMatrix x(rows, cols);
      x.fill(random, cols % 2 == 0 ? 1.0F : 1e-3F);  // small values: eps counts
      const std::vector<float> w = weights(random, cols);
      check_rows(
          x,
          cols,
          [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
            QUIRE_RUN_OP(ops, rms_norm, exec, {in.const_view(), w.data(), kEps, out.view()});
          },
          [](FencedMatrix&, int64_t, int64_t, double want) {
            return 8 * kEpsilon * std::fabs(want);
          });
    }
  }
}

TEST(RmsNorm, MayWriteOverItsInput) {
  std::mt19937_64 random(1);
  FencedMatrix x(3, 100);
  x.fill(random);
  const std::vector<float> w = weights(random, 100);
  Exec exec(1);
  for (const IsaLevel& level : levels_here()) {
    FencedMatrix y(3, 100);
    QUIRE_RUN_OP(*level.ops, rms_norm, exec, {x.const_view(), w.data(), kEps, y.view()});
    FencedMatrix z = x;
    QUIRE_RUN_OP(*level.ops, rms_norm, exec, {z.const_view(), w.data(), kEps, z.view()});
    expect_same_bits(y.values(), z.values());
  }
}

TEST(HeadRmsNorm, NormalisesEachHeadByItself) {
  for (int32_t dim : {8, 32, 64, 80, 128, 17}) {
    std::mt19937_64 random(dim);
    FencedMatrix x(7, 3 * dim);
    x.fill(random);
    const std::vector<float> w = weights(random, dim);
    check_rows(
        x,
        3 * dim,
        [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
          for (int64_t r = 0; r < in.rows(); ++r) {
            for (int64_t c = 0; c < in.cols(); ++c) out.at(r, c) = in.at(r, c);
          }
          QUIRE_RUN_OP(ops, head_rms_norm, exec, {out.view(), 3, dim, w.data(), kEps});
        },
        [](FencedMatrix&, int64_t, int64_t, double want) {
          return 8 * kEpsilon * std::fabs(want);
        });
  }
}

TEST(LayerNorm, MatchesReferenceOverAwkwardShapes) {
  for (int64_t rows : kRows) {
    for (int64_t cols : kCols) {
      std::mt19937_64 random(rows * 1000 + cols);
      FencedMatrix x(rows, cols);
      x.fill(random);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) x.at(r, c) += 3;
      }
      const std::vector<float> w = weights(random, cols);
      const std::vector<float> b = weights(random, cols);
      const float* bias = cols % 2 == 0 ? b.data() : nullptr;
      check_rows(
          x,
          cols,
          [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
            QUIRE_RUN_OP(
                ops, layer_norm, exec, {in.const_view(), w.data(), bias, kEps, out.view()});
          },
          [&](FencedMatrix& in, int64_t row, int64_t c, double want) {
            // The mean is off by a few ulp of the largest input; a row of one column has variance
            // 0 and multiplies that by 1 / sqrt(eps).
            const double gain = cols < 8 ? 1 / std::sqrt(kEps) : 2;
            return 4 * kEpsilon * (largest(in, row) * gain * std::fabs(w[c]) + std::fabs(want));
          });
    }
  }
}

TEST(SiluAndMul, MatchesReferenceOverAwkwardShapes) {
  for (int64_t rows : kRows) {
    for (int64_t cols : kCols) {
      std::mt19937_64 random(rows * 1000 + cols);
      FencedMatrix x(rows, 2 * cols);
      x.fill(random, 4);
      check_rows(
          x,
          cols,
          [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
            QUIRE_RUN_OP(ops, silu_and_mul, exec, {in.const_view(), out.view()});
          },
          [](FencedMatrix&, int64_t, int64_t, double want) {
            return 6 * kEpsilon * std::fabs(want) + 1e-44;
          });
    }
  }
}

// exp is inside silu: silu(-x) / -x = 1 / (1 + e^x), and e^x itself for large x in silu's tail.
TEST(SiluAndMul, IsAccurateOverTheWholeRangeOfExp) {
  const int64_t n = 4096;
  FencedMatrix x(1, 2 * n, 0);
  for (int64_t i = 0; i < n; ++i) {
    x.at(0, i) = static_cast<float>(-110 + 220.0 * static_cast<double>(i) / (n - 1));
    x.at(0, n + i) = 1;
  }
  x.at(0, 0) = std::numeric_limits<float>::infinity();
  check_rows(
      x,
      n,
      [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
        QUIRE_RUN_OP(ops, silu_and_mul, exec, {in.const_view(), out.view()});
      },
      [](FencedMatrix& in, int64_t, int64_t c, double want) {
        if (std::isinf(want)) return 0.0;
        // Below -88.7 the sum 1 + e^-x is infinite in f32 and the result -0, off by 3e-37.
        return (in.at(0, c) < -88 ? 1e-36 : 0) + 5 * kEpsilon * std::fabs(want);
      });
}

TEST(Relu, ClampsNegativeValues) {
  std::mt19937_64 random(1);
  for (int64_t cols : kCols) {
    FencedMatrix x(5, cols);
    x.fill(random);
    check_rows(
        x,
        cols,
        [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
          for (int64_t r = 0; r < in.rows(); ++r) {
            for (int64_t c = 0; c < in.cols(); ++c) out.at(r, c) = in.at(r, c);
          }
          QUIRE_RUN_OP(ops, relu, exec, {out.view()});
        },
        [](FencedMatrix&, int64_t, int64_t, double) { return 0.0; });
  }
}

TEST(Add, AddsInPlace) {
  std::mt19937_64 random(1);
  for (int64_t cols : kCols) {
    FencedMatrix x(5, cols);
    x.fill(random);
    check_rows(
        x,
        cols,
        [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
          for (int64_t r = 0; r < in.rows(); ++r) {
            for (int64_t c = 0; c < in.cols(); ++c) out.at(r, c) = static_cast<float>(c);
          }
          QUIRE_RUN_OP(ops, add, exec, {in.const_view(), out.view()});
        },
        [](FencedMatrix&, int64_t, int64_t, double) { return 0.0; });
  }
}

TEST(Rope, RotatesPairsOfEachHead) {
  struct Case {
    int32_t dim, rotary_dim;
  };
  for (const Case& shape : {Case{64, 64}, Case{80, 32}, Case{128, 128}, Case{34, 34}, Case{6, 2}}) {
    std::mt19937_64 random(shape.dim);
    const int32_t heads = 3;
    FencedMatrix x(9, heads * shape.dim);
    x.fill(random);
    FencedMatrix table(50, shape.rotary_dim, 0);
    for (int32_t p = 0; p < 50; ++p) {
      for (int32_t i = 0; i < shape.rotary_dim / 2; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / shape.rotary_dim);
        table.at(p, i) = static_cast<float>(std::cos(angle));
        table.at(p, shape.rotary_dim / 2 + i) = static_cast<float>(std::sin(angle));
      }
    }
    // The row alone, of check_rows, stands at the same position as the last row.
    const std::vector<int32_t> positions = {7, 1, 49, 0, 3, 3, 12, 8, 31};
    check_rows(
        x,
        heads * shape.dim,
        [&](const OpTable& ops, Exec& exec, FencedMatrix& in, FencedMatrix& out) {
          for (int64_t r = 0; r < in.rows(); ++r) {
            for (int64_t c = 0; c < in.cols(); ++c) out.at(r, c) = in.at(r, c);
          }
          const int32_t* first = positions.data() + (9 - in.rows());
          QUIRE_RUN_OP(ops,
                       rope,
                       exec,
                       {out.view(), heads, shape.dim, shape.rotary_dim, first, table.row(0)});
        },
        [](FencedMatrix& in, int64_t row, int64_t, double) {
          return 2 * kEpsilon * largest(in, row);
        });
  }
}

TEST(GatherRows, CopiesTheRowsNamed) {
  std::mt19937_64 random(1);
  FencedMatrix x(11, 100);
  x.fill(random);
  const std::vector<int32_t> rows = {10, 0, 3, 3};
  Exec exec(2);
  for (const IsaLevel& level : levels_here()) {
    FencedMatrix want(4, 100);
    ref_ops().gather_rows(exec.context(), {x.const_view(), rows.data(), want.view()});
    FencedMatrix got(4, 100);
    QUIRE_RUN_OP(*level.ops, gather_rows, exec, {x.const_view(), rows.data(), got.view()});
    got.expect_intact();
    expect_same_bits(got.values(), want.values());
    EXPECT_EQ(got.at(2, 99), x.at(3, 99));
  }
}

}  // namespace
}  // namespace quire::testing
