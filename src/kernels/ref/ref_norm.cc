#include <cmath>

#include "base/mutants.h"
#include "kernels/ref/ref.h"

namespace quire::ref {
namespace {

void rms_norm_row(const float* x, const float* weight, float eps, int64_t n, float* y) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
  if (mutant("kernels_norm_without_eps")) eps = 0;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * scale * weight[i]);
}

}  // namespace

void rms_norm(const ExecContext&, const RmsNormArgs& a) {
  for (int64_t t = 0; t < a.x.rows; ++t) {
    rms_norm_row(a.x.data + t * a.x.stride, a.weight, a.eps, a.x.cols, a.y.data + t * a.y.stride);
  }
}

void head_rms_norm(const ExecContext&, const HeadRmsNormArgs& a) {
  for (int64_t t = 0; t < a.x.rows; ++t) {
    for (int32_t h = 0; h < a.heads; ++h) {
      float* x = a.x.data + t * a.x.stride + int64_t{h} * a.head_dim;
      rms_norm_row(x, a.weight, a.eps, a.head_dim, x);
    }
  }
}

void layer_norm(const ExecContext&, const LayerNormArgs& a) {
  const int64_t n = a.x.cols;
  for (int64_t t = 0; t < a.x.rows; ++t) {
    const float* x = a.x.data + t * a.x.stride;
    float* y = a.y.data + t * a.y.stride;
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<double>(n);
    double variance = 0;
    for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    variance /= static_cast<double>(n);
    const double scale = 1 / std::sqrt(variance + a.eps);
    for (int64_t i = 0; i < n; ++i) {
      const double bias = a.bias == nullptr ? 0 : a.bias[i];
      y[i] = static_cast<float>((x[i] - mean) * scale * a.weight[i] + bias);
    }
  }
}

}  // namespace quire::ref
