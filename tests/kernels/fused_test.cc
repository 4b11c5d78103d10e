// The fused ops of every level: the same bytes as the ops they stand for, the same for any number
// of threads and wherever a row stands, and near double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/matrix_fixture.h"
#include "kernels/op_testing.h"

namespace quire::testing {
namespace {

constexpr float kEps = 1e-5F;
const int64_t kRows[] = {0, 1, 2, 5, 37};
const int64_t kCols[] = {1, 7, 16, 31, 32, 33, 100, 257, 576, 2049};
const ActivationType kTypes[] = {
    ActivationType::kF32, ActivationType::kInt16, ActivationType::kInt8};

std::vector<OpTable> all_tables() {
  std::vector<OpTable> tables = tables_here();
  tables.push_back(ref_ops());
  return tables;
}

// Prepared rows in fenced memory, zero where no op writes, so that all bytes can be compared.
class Prepared {
 public:
  Prepared(ActivationType type, int64_t rows, int64_t cols)
      : bytes_(activation_bytes(type, rows, cols)),
        memory_(bytes_, 0),
        view{type, rows, cols, memory_.data()} {}
  void expect_equal(Prepared& other) {
    EXPECT_TRUE(memory_.intact() && other.memory_.intact());
    EXPECT_EQ(std::memcmp(memory_.data(), other.memory_.data(), static_cast<size_t>(bytes_)), 0);
  }

 private:
  int64_t bytes_;
  test::Fenced memory_;

 public:
  Activations view;
};

struct NormCase {
  NormKind kind;
  bool adds, keeps, biased;
};
const NormCase kNormCases[] = {{NormKind::kRms, false, false, false},
                               {NormKind::kRms, true, false, false},
                               {NormKind::kRms, true, true, false},
                               {NormKind::kLayer, false, false, true},
                               {NormKind::kLayer, true, false, false},
                               {NormKind::kLayer, true, true, true}};

struct NormInputs {
  NormInputs(int64_t rows, int64_t cols)
      : x(rows, cols), added(rows, cols, 2), weight(1, cols, 0), bias(1, cols, 0) {
    std::mt19937_64 random(static_cast<uint64_t>(rows * 10007 + cols));
    x.fill(random);
    added.fill(random, 0.5F);
    weight.fill(random);
    bias.fill(random);
  }
  NormQuantizeArgs args(const NormCase& c, FencedMatrix& sum, const Activations& out) {
    return {c.kind,
            c.adds ? added.const_view() : ConstMatF{},
            sum.view(),
            weight.row(0),
            c.biased ? bias.row(0) : nullptr,
            kEps,
            c.keeps ? sum.view() : MatF{},
            out};
  }
  FencedMatrix x, added, weight, bias;
};

// add, norm, quantize, one after another.
void run_apart(const OpTable& ops, Exec& exec, const NormQuantizeArgs& a, FencedMatrix& sum) {
  FencedMatrix y(sum.rows(), sum.cols());
  MatF to = a.y.data != nullptr ? sum.view() : y.view();
  if (a.added.data != nullptr) ops.add(exec.context(), {a.added, sum.view()});
  if (a.kind == NormKind::kRms) {
    ops.rms_norm(exec.context(), {sum.const_view(), a.weight, a.eps, to});
  } else {
    ops.layer_norm(exec.context(), {sum.const_view(), a.weight, a.bias, a.eps, to});
  }
  ops.quantize(exec.context(), {{to.data, to.rows, to.cols, to.stride}, a.out});
}

TEST(NormQuantize, GivesTheBytesOfTheOpsApart) {
  for (const OpTable& ops : all_tables()) {
    for (int64_t rows : kRows) {
      for (int64_t cols : kCols) {
        NormInputs inputs(rows, cols);
        for (const NormCase& c : kNormCases) {
          for (ActivationType type : kTypes) {
            SCOPED_TRACE(std::string(ops.name) + ", " + std::to_string(rows) + " rows of " +
                         std::to_string(cols) + ", type " + std::to_string(static_cast<int>(type)));
            Exec one(1);
            FencedMatrix sum = inputs.x;
            Prepared apart(type, rows, cols);
            run_apart(ops, one, inputs.args(c, sum, apart.view), sum);
            for (int threads : {1, 3}) {
              Exec exec(threads);
              FencedMatrix fused_sum = inputs.x;
              Prepared fused(type, rows, cols);
              QUIRE_RUN_OP(ops, norm_quantize, exec, inputs.args(c, fused_sum, fused.view));
              fused.expect_equal(apart);
              fused_sum.expect_intact();
              expect_same_bits(fused_sum.values(), sum.values());
            }
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

FencedMatrix random_rows(int64_t rows, int64_t cols) {
  std::mt19937_64 random(static_cast<uint64_t>(rows * 10007 + cols));
  FencedMatrix x(rows, cols);
  x.fill(random, 3);
  return x;
}

TEST(ActivateQuantize, GivesTheBytesOfTheOpsApart) {
  for (const OpTable& ops : all_tables()) {
    for (int64_t rows : kRows) {
      for (int64_t cols : kCols) {
        for (ActivationType type : kTypes) {
          SCOPED_TRACE(std::string(ops.name) + ", " + std::to_string(rows) + " rows of " +
                       std::to_string(cols) + ", type " + std::to_string(static_cast<int>(type)));
          Exec one(1);
          FencedMatrix gate_up = random_rows(rows, 2 * cols), x = random_rows(rows, cols);
          FencedMatrix silu(rows, cols), relu = x;
          Prepared silu_apart(type, rows, cols), relu_apart(type, rows, cols);
          ops.silu_and_mul(one.context(), {gate_up.const_view(), silu.view()});
          ops.quantize(one.context(), {silu.const_view(), silu_apart.view});
          ops.relu(one.context(), {relu.view()});
          ops.quantize(one.context(), {relu.const_view(), relu_apart.view});
          for (int threads : {1, 3}) {
            Exec exec(threads);
            Prepared fused_silu(type, rows, cols), fused_relu(type, rows, cols);
            QUIRE_RUN_OP(ops,
                         activate_quantize,
                         exec,
                         {ActivationFunction::kSiluAndMul, gate_up.const_view(), fused_silu.view});
            QUIRE_RUN_OP(ops,
                         activate_quantize,
                         exec,
                         {ActivationFunction::kRelu, x.const_view(), fused_relu.view});
            fused_silu.expect_equal(silu_apart);
            fused_relu.expect_equal(relu_apart);
          }
          if (HasFailure()) return;
        }
      }
    }
  }
}

// The product of fused rows with a matrix, beside that of the reference. The normalised (or
// activated) values differ by a few ulp, which can move a code to its neighbour now and then.
void expect_near_reference(const std::function<void(const OpTable&, const Activations&)>& fill,
                           int64_t rows,
                           int64_t cols) {
  test::TestMatrix w(DType::kQ8_0, 33, cols, 5);
  float largest_weight = 0;
  for (float v : w.values) largest_weight = std::max(largest_weight, std::fabs(v));
  Exec exec(2);
  const auto product = [&](const OpTable& ops, ActivationType type) {
    Prepared prepared(type, rows, cols);
    fill(ops, prepared.view);
    FencedMatrix y(rows, 33);
    ops.linear(exec.context(), {prepared.view, &w.packed, 1, nullptr, false, y.view()});
    return y.values();
  };
  const std::vector<float> exact = product(ref_ops(), ActivationType::kF32);
  for (ActivationType type : kTypes) {
    const std::vector<float> want = product(ref_ops(), type);
    const double codes = type == ActivationType::kInt8 ? 127 : 32512;
    // |x| <= 64 for these inputs: four codes moved, or 2e-6 of the sum.
    const double one_code = type == ActivationType::kF32 ? 0 : 64 / codes * largest_weight;
    const double allowed = 4 * one_code + 2e-6 * 16 * static_cast<double>(cols) * largest_weight;
    for (const OpTable& ops : tables_here()) {
      SCOPED_TRACE(ops.name);
      expect_near(product(ops, type), want, std::vector<double>(want.size(), allowed));
    }
    if (type == ActivationType::kInt16) {
      expect_near(want, exact, std::vector<double>(want.size(), 0.05));
    }
  }
}

TEST(NormQuantize, IsNearDoublePrecision) {
  for (const NormCase& c : kNormCases) {
    NormInputs inputs(5, 576);
    Exec exec(2);
    expect_near_reference(
        [&](const OpTable& ops, const Activations& out) {
          FencedMatrix sum = inputs.x;
          QUIRE_RUN_OP(ops, norm_quantize, exec, inputs.args(c, sum, out));
        },
        5,
        576);
  }
}

TEST(ActivateQuantize, IsNearDoublePrecision) {
  FencedMatrix x = random_rows(5, 2 * 576), hidden = random_rows(5, 576);
  Exec exec(2);
  expect_near_reference(
      [&](const OpTable& ops, const Activations& out) {
        QUIRE_RUN_OP(
            ops, activate_quantize, exec, {ActivationFunction::kSiluAndMul, x.const_view(), out});
      },
      5,
      576);
  expect_near_reference(
      [&](const OpTable& ops, const Activations& out) {
        QUIRE_RUN_OP(
            ops, activate_quantize, exec, {ActivationFunction::kRelu, hidden.const_view(), out});
      },
      5,
      576);
}

TEST(AddBias, AddsItToEveryRow) {
  std::mt19937_64 random(1);
  for (int64_t cols : kCols) {
    FencedMatrix bias(1, cols, 0), y(37, cols);
    bias.fill(random);
    y.fill(random);
    Exec one(1), three(3);
    FencedMatrix want = y;
    ref_ops().add_bias(one.context(), {bias.row(0), want.view()});
    EXPECT_EQ(want.at(36, cols - 1), y.at(36, cols - 1) + bias.at(0, cols - 1));
    for (const OpTable& ops : tables_here()) {
      for (Exec* exec : {&one, &three}) {
        FencedMatrix got = y;
        QUIRE_RUN_OP(ops, add_bias, *exec, {bias.row(0), got.view()});
        got.expect_intact();
        expect_same_bits(got.values(), want.values());
      }
    }
  }
}

}  // namespace
}  // namespace quire::testing
