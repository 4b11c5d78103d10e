#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/mutants.h"
#include "kernels/ref/ref.h"

namespace quire::ref {

void add(const ExecContext&, const AddArgs& a) {
  for (int64_t t = 0; t < a.x.rows; ++t) {
    for (int64_t i = 0; i < a.x.cols; ++i) {
      a.y.data[t * a.y.stride + i] += a.x.data[t * a.x.stride + i];
    }
  }
}

void add_bias(const ExecContext&, const AddBiasArgs& a) {
  for (int64_t t = 0; t < a.y.rows; ++t) {
    for (int64_t i = 0; i < a.y.cols; ++i) a.y.data[t * a.y.stride + i] += a.bias[i];
  }
}

void silu_and_mul(const ExecContext&, const SiluAndMulArgs& a) {
  for (int64_t t = 0; t < a.y.rows; ++t) {
    const float* gate = a.gate_up.data + t * a.gate_up.stride;
    const float* up = gate + a.y.cols;
    for (int64_t i = 0; i < a.y.cols; ++i) {
      const double g = mutant("kernels_silu_sign") ? -gate[i] : gate[i];
      a.y.data[t * a.y.stride + i] = static_cast<float>(g / (1 + std::exp(-g)) * up[i]);
    }
  }
}

void relu(const ExecContext&, const ReluArgs& a) {
  for (int64_t t = 0; t < a.x.rows; ++t) {
    for (int64_t i = 0; i < a.x.cols; ++i) {
      float& x = a.x.data[t * a.x.stride + i];
      if (x < 0) x = 0;
    }
  }
}

void rope(const ExecContext&, const RopeArgs& a) {
  const int32_t half = a.rotary_dim / 2;
  for (int64_t t = 0; t < a.x.rows; ++t) {
    const float* cosine = a.cos_sin + int64_t{a.positions[t]} * a.rotary_dim;
    const float* sine = cosine + half;
    for (int32_t h = 0; h < a.heads; ++h) {
      float* x = a.x.data + t * a.x.stride + int64_t{h} * a.head_dim;
      for (int32_t i = 0; i < half; ++i) {
        const int32_t j = half + (mutant("kernels_rope_pairs") ? half - 1 - i : i);
        const double x0 = x[i];
        const double x1 = x[j];
        x[i] = static_cast<float>(x0 * cosine[i] - x1 * sine[i]);
        x[j] = static_cast<float>(x1 * cosine[i] + x0 * sine[i]);
      }
    }
  }
}

void gather_rows(const ExecContext&, const GatherRowsArgs& a) {
  for (int64_t t = 0; t < a.y.rows; ++t) {
    const float* x = a.x.data + a.rows[t] * a.x.stride;
    std::copy(x, x + a.x.cols, a.y.data + t * a.y.stride);
  }
}

void top_k(const ExecContext&, const TopKArgs& a) {
  std::vector<float> x(static_cast<size_t>(a.x.cols));
  std::vector<int32_t> order(x.size());
  for (int64_t t = 0; t < a.x.rows; ++t) {
    const float* row = a.x.data + t * a.x.stride;
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = std::isnan(row[i]) ? -std::numeric_limits<float>::infinity() : row[i];
    }
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&x](int32_t i, int32_t j) {
      if (x[i] != x[j]) return x[i] > x[j];
      return mutant("kernels_top_k_ties") ? i > j : i < j;
    });
    for (int32_t i = 0; i < a.k; ++i) {
      a.ids[t * a.k + i] = order[i];
      a.values[t * a.k + i] = x[order[i]];
    }
  }
}

}  // namespace quire::ref
