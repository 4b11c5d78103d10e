// `quantize`, `linear` and `embedding` of every level that runs here against double precision over
// the checkpoint's own weights, and against themselves bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/backend.h"
#include "kernels/matrix_fixture.h"
#include "kernels/op_testing.h"

namespace quire {

namespace {

using test::Fenced;
using test::TestMatrix;
using test::TestRows;

constexpr int64_t kMaxRows = 100;

struct Shape {
  int64_t n, k;
};

std::vector<Shape> shapes(DType type) {
  const int32_t elems = dtype_info(type).elems;
  if (elems == 1) return {{1, 1}, {31, 7}, {33, 33}, {32, 576}, {96, 301}, {577, 64}};
  if (elems == 32) return {{1, 32}, {31, 64}, {33, 576}, {32, 1536}, {96, 2048}, {577, 96}};
  return {{1, 256}, {33, 768}, {32, 1536}, {96, 2048}, {577, 256}};
}

const char* name_of(ActivationType type) {
  return type == ActivationType::kF32 ? "f32" : (type == ActivationType::kInt16 ? "int16" : "int8");
}

// The values that prepared activations stand for, by the definition in gemm_common.h.
std::vector<double> quantised_row(ActivationType type, const float* x, int64_t k) {
  std::vector<double> out(x, x + k);
  if (type == ActivationType::kF32) return out;
  const float limit = type == ActivationType::kInt16 ? 32512.0f : 127.0f;
  const int64_t span = type == ActivationType::kInt16 ? k : 32;
  for (int64_t begin = 0; begin < k; begin += span) {
    float max = 0;
    for (int64_t i = begin; i < begin + span; ++i) max = std::max(max, std::fabs(x[i]));
    const float scale = max / limit, inverse = limit / max;
    for (int64_t i = begin; i < begin + span; ++i) {
      out[i] = max == 0 ? 0.0 : static_cast<double>(scale) * std::nearbyint(x[i] * inverse);
    }
  }
  return out;
}

struct Expected {
  std::vector<double> y;      // [rows][n]
  std::vector<double> bound;  // sum |x| * max |w| of the row
};

Expected expected(ActivationType type, const TestRows& x, const TestMatrix& w) {
  const int64_t n = w.packed.n, k = w.packed.k;
  Expected out;
  for (int64_t t = 0; t < x.view.rows; ++t) {
    const std::vector<double> row = quantised_row(type, x.row(t), k);
    double sum_x = 0;
    for (const double v : row) sum_x += std::fabs(v);
    for (int64_t c = 0; c < n; ++c) {
      const float* weights = w.values.data() + c * k;
      double sum = 0;
      float max = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += row[i] * weights[i];
        max = std::max(max, std::fabs(weights[i]));
      }
      out.y.push_back(sum);
      out.bound.push_back(sum_x * max);
    }
  }
  return out;
}

// Quantises rows [first, first + rows) of x and multiplies; everything fenced.
std::vector<float> run(const OpTable& ops,
                       ActivationType type,
                       const TestRows& x,
                       int64_t first,
                       int64_t rows,
                       const std::vector<PackedMatrix>& segments,
                       const float* bias = nullptr,
                       const float* y_before = nullptr,
                       int32_t threads = 1) {
  testing::Exec pool(threads);
  int64_t n = 0;
  for (const PackedMatrix& w : segments) n += w.n;
  const int64_t k = x.view.cols, stride = n + 3;
  Fenced prepared(activation_bytes(type, rows, k));
  Fenced y(rows * stride * 4, 0x77);
  std::vector<float> out(rows * n);
  for (int64_t t = 0; y_before != nullptr && t < rows; ++t) {
    std::copy_n(y_before + t * n, n, y.floats() + t * stride);
  }
  const Activations activations = {type, rows, k, prepared.data()};
  QUIRE_RUN_OP(ops, quantize, pool, {{x.row(first), rows, k, x.view.stride}, activations});
  QUIRE_RUN_OP(ops,
               linear,
               pool,
               {activations,
                segments.data(),
                static_cast<int32_t>(segments.size()),
                bias,
                y_before != nullptr,
                {y.floats(), rows, n, stride}});
  EXPECT_TRUE(prepared.intact());
  EXPECT_TRUE(y.intact());
  for (int64_t t = 0; t < rows; ++t) {
    std::copy_n(y.floats() + t * stride, n, out.data() + t * n);
    for (int64_t c = n; c < stride; ++c) {
      const uint32_t canary = bits_of_f32(y.floats()[t * stride + c]);
      EXPECT_EQ(0x77777777u, canary) << "row " << t << " column " << c << " was written";
    }
  }
  return out;
}

void expect_same_bits(const float* a, const float* b, int64_t count, const std::string& what) {
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(bits_of_f32(a[i]), bits_of_f32(b[i]))
        << what << ": element " << i << ": " << a[i] << " and " << b[i];
  }
}

struct Case {
  DType weights;
  ActivationType activations;
};

class LinearTest : public ::testing::TestWithParam<Case> {};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType w : test::kWeightTypes) {
    all.push_back({w, ActivationType::kF32});
    if (dtype_info(w).elems == 1) continue;
    all.push_back({w, ActivationType::kInt16});
    all.push_back({w, ActivationType::kInt8});
  }
  return all;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  return dtype_info(info.param.weights).name + std::string("_") + name_of(info.param.activations);
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest, ::testing::ValuesIn(cases()), case_name);

TEST_P(LinearTest, EveryLevelAgreesWithDoublePrecisionAndWithItselfForEveryBatch) {
  const auto [type, activations] = GetParam();
  for (const Shape shape : shapes(type)) {
    TestMatrix w(type, shape.n, shape.k, 11);
    TestRows x(kMaxRows, shape.k, 12);
    const Expected want = expected(activations, x, w);
    for (const OpTable& ops : testing::tables_here()) {
      SCOPED_TRACE(std::string(ops.name) + " n=" + std::to_string(shape.n) +
                   " k=" + std::to_string(shape.k));
      const std::vector<float> y = run(ops, activations, x, 0, kMaxRows, {w.packed});
      double worst = 0;
      for (size_t i = 0; i < y.size(); ++i) {
        const double error = std::fabs(y[i] - want.y[i]) / (want.bound[i] + 1e-30);
        worst = std::max(worst, std::isnan(error) ? 1e9 : error);
      }
      EXPECT_LE(worst, 1e-6);
      for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 64}) {
        const int64_t first = m == 64 ? 36 : 0;
        const int32_t threads = m == 3 || m == 17 ? 2 : 1;
        const auto part = run(ops, activations, x, first, m, {w.packed}, nullptr, nullptr, threads);
        expect_same_bits(
            part.data(), y.data() + first * shape.n, m * shape.n, "rows " + std::to_string(m));
      }
      const std::vector<float> last = run(ops, activations, x, kMaxRows - 1, 1, {w.packed});
      expect_same_bits(last.data(), y.data() + (kMaxRows - 1) * shape.n, shape.n, "last row alone");
      EXPECT_TRUE(w.memory.intact());
    }
  }
}

TEST_P(LinearTest, ReferenceAgreesWithDoublePrecision) {
  const auto [type, activations] = GetParam();
  const OpTable& ops = ref_ops();
  const Shape shape = shapes(type)[1];
  TestMatrix w(type, shape.n, shape.k, 11);
  TestRows x(5, shape.k, 12);
  const Expected want = expected(activations, x, w);
  const std::vector<float> bias(shape.n, 3.0f);
  const std::vector<float> y = run(ops, activations, x, 0, 5, {w.packed}, bias.data());
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(y[i], want.y[i] + 3.0, 1e-6 * (want.bound[i] + 3.0)) << "element " << i;
  }
}

TEST_P(LinearTest, QuantisedActivationsStayNearTheFloatResult) {
  const auto [type, activations] = GetParam();
  if (activations == ActivationType::kF32) GTEST_SKIP() << "nothing is quantised";
  const double limit = activations == ActivationType::kInt16 ? 1e-4 : 1e-2;
  TestMatrix w(type, 64, 768, 11);
  TestRows x(20, 768, 12);
  const Expected want = expected(ActivationType::kF32, x, w);
  for (const OpTable& ops : testing::tables_here()) {
    const std::vector<float> y = run(ops, activations, x, 0, 20, {w.packed});
    double error = 0, norm = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      error += (y[i] - want.y[i]) * (y[i] - want.y[i]);
      norm += want.y[i] * want.y[i];
    }
    EXPECT_LE(std::sqrt(error / norm), limit) << ops.name;
  }
}

TEST_P(LinearTest, BiasAndYAreAddedAfterTheProduct) {
  const auto [type, activations] = GetParam();
  TestMatrix w(type, 33, 256, 11);
  TestRows x(6, 256, 12);
  TestRows before(6, 33, 13), bias(1, 33, 14);
  std::vector<float> y0;
  for (int64_t t = 0; t < 6; ++t) y0.insert(y0.end(), before.row(t), before.row(t) + 33);
  for (const OpTable& ops : testing::tables_here()) {
    for (const int64_t m : {2, 6}) {
      const std::vector<float> plain = run(ops, activations, x, 0, m, {w.packed});
      const auto both = run(ops, activations, x, 0, m, {w.packed}, bias.row(0), y0.data());
      for (int64_t i = 0; i < m * 33; ++i) {
        const float sum = plain[i] + bias.row(0)[i % 33];
        ASSERT_EQ(y0[i] + sum, both[i]) << ops.name << " element " << i;
      }
    }
  }
}

TEST_P(LinearTest, RowsWithNonFiniteValuesPoisonOnlyThemselves) {
  const auto [type, activations] = GetParam();
  TestMatrix w(type, 33, 256, 11);
  TestRows clean(7, 256, 12), dirty(7, 256, 12);
  auto* data = const_cast<float*>(dirty.view.data);
  data[1 * dirty.view.stride + 200] = std::numeric_limits<float>::quiet_NaN();
  data[3 * dirty.view.stride + 7] = -std::numeric_limits<float>::infinity();
  for (const OpTable& ops : testing::tables_here()) {
    for (const int64_t m : {4, 7}) {
      const std::vector<float> want = run(ops, activations, clean, 0, m, {w.packed});
      const std::vector<float> got = run(ops, activations, dirty, 0, m, {w.packed});
      for (int64_t t = 0; t < m; ++t) {
        if (t == 1 || t == 3) {
          for (int64_t c = 0; c < 33; ++c) EXPECT_FALSE(std::isfinite(got[t * 33 + c])) << ops.name;
        } else {
          expect_same_bits(got.data() + t * 33, want.data() + t * 33, 33, ops.name);
        }
      }
    }
  }
}

TEST_P(LinearTest, ZeroAndVanishingRowsGiveZero) {
  const auto [type, activations] = GetParam();
  TestMatrix w(type, 33, 256, 11);
  TestRows x(6, 256, 12);
  auto* data = const_cast<float*>(x.view.data);
  std::fill_n(data + 2 * x.view.stride, 256, 0.0f);
  std::fill_n(data + 4 * x.view.stride, 256, 1e-42f);
  for (const OpTable& ops : testing::tables_here()) {
    const std::vector<float> y = run(ops, activations, x, 0, 6, {w.packed});
    for (const int64_t t : {2, 4}) {
      for (int64_t c = 0; c < 33; ++c) EXPECT_NEAR(0.0f, y[t * 33 + c], 1e-37f) << ops.name;
    }
  }
}

TEST(Linear, SegmentsOfDifferentTypesStandBesideOneAnother) {
  const ActivationType kinds[] = {
      ActivationType::kF32, ActivationType::kInt16, ActivationType::kInt8};
  const DType types[] = {DType::kQ4_K, DType::kQ6_K, DType::kQ4_1, DType::kQ8_0};
  const int64_t sizes[] = {70, 33, 1, 64};
  std::vector<TestMatrix> parts;
  parts.reserve(4);
  std::vector<PackedMatrix> segments;
  for (int i = 0; i < 4; ++i) {
    parts.emplace_back(types[i], sizes[i], 512, 20 + i);
    segments.push_back(parts.back().packed);
  }
  TestRows x(9, 512, 12), bias(1, 168, 13);
  for (const OpTable& ops : testing::tables_here()) {
    for (const ActivationType kind : kinds) {
      for (const int64_t m : {1, 9}) {
        const auto all = run(ops, kind, x, 0, m, segments, bias.row(0), nullptr, 2);
        int64_t column = 0;
        for (int i = 0; i < 4; ++i) {
          const auto one = run(ops, kind, x, 0, m, {segments[i]}, bias.row(0) + column);
          for (int64_t t = 0; t < m; ++t) {
            expect_same_bits(
                all.data() + t * 168 + column, one.data() + t * sizes[i], sizes[i], ops.name);
          }
          column += sizes[i];
        }
      }
    }
  }
}

TEST(Linear, MoreRowsThanARowBlockChangeNothing) {
  TestMatrix w(DType::kQ4_1, 64, 288, 11);
  TestRows x(300, 288, 12);
  for (const OpTable& ops : testing::tables_here()) {
    const auto y = run(ops, ActivationType::kInt16, x, 0, 300, {w.packed}, nullptr, nullptr, 2);
    for (const int64_t t : {0, 255, 256, 299}) {
      const auto one = run(ops, ActivationType::kInt16, x, t, 1, {w.packed});
      expect_same_bits(y.data() + t * 64, one.data(), 64, ops.name);
    }
  }
}

TEST(Linear, NoRowsIsNoWork) {
  TestMatrix w(DType::kQ4_0, 32, 32, 11);
  TestRows x(1, 32, 12);
  for (const OpTable& ops : testing::tables_here()) {
    EXPECT_TRUE(run(ops, ActivationType::kInt16, x, 0, 0, {w.packed}).empty());
  }
}

TEST(Embedding, RowsAreBitEqualToTheCheckpoint) {
  for (const DType type : test::kWeightTypes) {
    const int64_t n = 70, k = 256;
    TestMatrix w(type, n, k, 11);
    const std::vector<int32_t> ids = {0, 69, 33, 33, 31};
    for (const OpTable& ops : testing::tables_here()) {
      Fenced out(ids.size() * (k + 2) * 4, 0x77);
      testing::Exec pool(2);
      QUIRE_RUN_OP(
          ops,
          embedding,
          pool,
          {w.packed, ids.data(), {out.floats(), static_cast<int64_t>(ids.size()), k, k + 2}});
      EXPECT_TRUE(out.intact());
      for (size_t i = 0; i < ids.size(); ++i) {
        expect_same_bits(out.floats() + i * (k + 2), w.values.data() + ids[i] * k, k, ops.name);
        EXPECT_EQ(0x77777777u, bits_of_f32(out.floats()[i * (k + 2) + k]));
      }
    }
  }
}

}  // namespace
}  // namespace quire
