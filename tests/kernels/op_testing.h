// What op tests share: every level that runs here, memory with fences, coverage of (op, level).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/parallel.h"

namespace quire::testing {

// The levels that this machine runs.
std::vector<IsaLevel> levels_here();
std::vector<OpTable> tables_here();

// Notes that a test exercised `op` on `level`; what is never noted fails the test binary
// (coverage.cc).
void mark_covered(const std::string& op, const std::string& level);

// Calls an op of a level's table and notes it.
#define QUIRE_RUN_OP(table, op, exec, ...)             \
  do {                                                 \
    ::quire::testing::mark_covered(#op, (table).name); \
    (table).op((exec).context(), __VA_ARGS__);         \
  } while (false)

// A thread pool with scratch.
class Exec {
 public:
  explicit Exec(int num_threads);
  ExecContext context();

 private:
  ThreadPool pool_;
  HugeBuffer scratch_;
};

// A matrix whose rows are farther apart than they are long, between guard zones. All that is not an
// element holds a signalling pattern that is a NaN: reading it spoils results, writing it is seen
// by expect_intact.
class FencedMatrix {
 public:
  FencedMatrix(int64_t rows, int64_t cols, int64_t gap = 5);
  // Standard normal values times `scale`.
  FencedMatrix& fill(std::mt19937_64& random, float scale = 1);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  float* row(int64_t r) { return data() + r * stride_; }
  float& at(int64_t r, int64_t c) { return row(r)[c]; }
  MatF view() { return {data(), rows_, cols_, stride_}; }
  ConstMatF const_view() { return {data(), rows_, cols_, stride_}; }
  void expect_intact() const;
  // Elements, rows one after the other.
  std::vector<float> values() const;

 private:
  float* data();

  int64_t rows_, cols_, stride_;
  std::vector<float> memory_;
};

// Same bits in both.
void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b);
// |got - want| <= tolerance[i] for each element; NaN never passes.
void expect_near(const std::vector<float>& got,
                 const std::vector<float>& want,
                 const std::vector<double>& tolerance);

inline constexpr double kEpsilon = 0x1p-23;

}  // namespace quire::testing
