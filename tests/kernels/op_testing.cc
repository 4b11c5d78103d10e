#include "kernels/op_testing.h"

#include <cmath>
#include <cstring>
#include <set>

#include "base/mutants.h"

namespace quire::testing {
namespace {

constexpr uint32_t kCanary = 0x7fc0dead;  // a NaN that no operation makes
constexpr int64_t kGuard = 64;

float canary() {
  float x;
  std::memcpy(&x, &kCanary, 4);
  return x;
}

uint32_t bits(float x) {
  uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}

using Covered = std::set<std::pair<std::string, std::string>>;

// Fails the binary when an op of a level that runs here was in no test. Only in full runs.
class CoverageRule : public ::testing::Environment {
 public:
  void TearDown() override {
    if (::testing::GTEST_FLAG(filter) != "*") return;
#define QUIRE_EXPECT_COVERED(op, Args) expect_covered(#op);
    QUIRE_OPS(QUIRE_EXPECT_COVERED)
#undef QUIRE_EXPECT_COVERED
  }

  Covered covered;

 private:
  void expect_covered(const std::string& op) {
    for (const IsaLevel& level : levels_here()) {
      EXPECT_TRUE(covered.contains({op, level.name}))
          << "no test exercises op " << op << " of level " << level.name;
    }
  }
};

CoverageRule* const coverage_rule = static_cast<CoverageRule*>(
    ::testing::AddGlobalTestEnvironment(new CoverageRule));  // owned by GoogleTest

}  // namespace

std::vector<IsaLevel> levels_here() {
  std::vector<IsaLevel> levels;
  for (const IsaLevel& level : cpu_levels()) {
    if (level.runs_here) levels.push_back(level);
  }
  return levels;
}

std::vector<OpTable> tables_here() {
  std::vector<OpTable> tables;
  for (const IsaLevel& level : levels_here()) tables.push_back(*level.ops);
  return tables;
}

void mark_covered(const std::string& op, const std::string& level) {
  if (mutant("coverage_misses_relu") && op == "relu") return;
  coverage_rule->covered.insert({op, level});
}

Exec::Exec(int num_threads)
    : pool_(num_threads),
      scratch_(HugeBuffer::allocate(num_threads * kScratchBytesPerThread, "scratch").value()) {}

ExecContext Exec::context() { return {make_parallel(pool_), scratch_.data()}; }

FencedMatrix::FencedMatrix(int64_t rows, int64_t cols, int64_t gap)
    : rows_(rows), cols_(cols), stride_(cols + gap) {
  memory_.assign(static_cast<size_t>(rows * stride_ + 2 * kGuard), canary());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) at(r, c) = 0;
  }
}

FencedMatrix& FencedMatrix::fill(std::mt19937_64& random, float scale) {
  std::normal_distribution<float> normal(0, scale);
  for (int64_t r = 0; r < rows_; ++r) {
    for (int64_t c = 0; c < cols_; ++c) at(r, c) = normal(random);
  }
  return *this;
}

float* FencedMatrix::data() { return memory_.data() + kGuard; }

void FencedMatrix::expect_intact() const {
  for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i) {
    const int64_t element = i - kGuard;
    const bool inside = element >= 0 && element < rows_ * stride_ && element % stride_ < cols_;
    if (inside) continue;
    ASSERT_EQ(bits(memory_[i]), kCanary) << "written outside the matrix: row " << element / stride_
                                         << ", column " << element % stride_ << " of " << cols_;
  }
}

std::vector<float> FencedMatrix::values() const {
  std::vector<float> all;
  for (int64_t r = 0; r < rows_; ++r) {
    const auto begin = memory_.begin() + kGuard + r * stride_;
    all.insert(all.end(), begin, begin + cols_);
  }
  return all;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(bits(a[i]), bits(b[i])) << "element " << i << ": " << a[i] << " and " << b[i];
  }
}

void expect_near(const std::vector<float>& got,
                 const std::vector<float>& want,
                 const std::vector<double>& tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(double{got[i]} - want[i]);
    ASSERT_TRUE(error <= tolerance[i] || got[i] == want[i])
        << "element " << i << ": got " << got[i] << ", want " << want[i] << ", allowed "
        << tolerance[i];
  }
}

}  // namespace quire::testing
