// Reference matrix ops: double accumulation, one thread, one product at a time. Rows are quantised
// as gemm_common.h defines, with codes as int16 in increasing k; the sums keep no order.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/mutants.h"
#include "kernels/cpu/gemm_common.h"
#include "kernels/pack.h"
#include "kernels/ref/ref.h"

namespace quire::ref {
namespace {

constexpr float kTiny = 0x1p-100f;

struct Scale {
  float scale, inverse;
};

Scale scale_of(const float* x, int64_t n, float limit) {
  float max = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
    max = std::fmax(max, std::fabs(x[i]));
  }
  if (max < kTiny) return {0.0f, 0.0f};
  return {max / limit, limit / max};
}

// Elements [begin, begin + n) of a prepared row as the values that the codes stand for.
void quantize_span(const float* x, int64_t n, const Scale& scale, int16_t* codes) {
  for (int64_t i = 0; i < n; ++i) {
    const bool skip = scale.inverse == 0.0f;
    codes[i] = skip ? 0 : static_cast<int16_t>(std::nearbyint(x[i] * scale.inverse));
    if (mutant("kernels_ref_quantize_truncates") && !skip) {
      codes[i] = static_cast<int16_t>(x[i] * scale.inverse);
    }
  }
}

// Row t of the prepared activations as doubles [cols].
void prepared_row(const Activations& x, int64_t t, std::vector<double>* out) {
  const cpu::RowLayout layout = cpu::row_layout(x.type, x.cols);
  const unsigned char* row = x.data + t * layout.stride;
  const float* scales = reinterpret_cast<const float*>(row + layout.scale);
  out->resize(x.cols);
  for (int64_t i = 0; i < x.cols; ++i) {
    if (x.type == ActivationType::kF32) {
      (*out)[i] = reinterpret_cast<const float*>(row)[i];
    } else {
      const double scale = scales[x.type == ActivationType::kInt8 ? i / 32 : 0];
      (*out)[i] = scale * reinterpret_cast<const int16_t*>(row)[i];
    }
  }
}

}  // namespace

void quantize(const ExecContext&, const QuantizeArgs& args) {
  const int64_t cols = args.out.cols;
  const cpu::RowLayout layout = cpu::row_layout(args.out.type, cols);
  for (int64_t t = 0; t < args.out.rows; ++t) {
    const float* x = args.x.data + t * args.x.stride;
    unsigned char* row = args.out.data + t * layout.stride;
    if (args.out.type == ActivationType::kF32) {
      for (int64_t i = 0; i < cols; ++i) reinterpret_cast<float*>(row)[i] = x[i];
      continue;
    }
    const bool int8 = args.out.type == ActivationType::kInt8;
    const int64_t span = int8 ? 32 : cols;
    for (int64_t begin = 0; begin < cols; begin += span) {
      const int64_t n = std::min(span, cols - begin);
      const Scale scale = scale_of(x + begin, n, int8 ? 127.0f : 32512.0f);
      reinterpret_cast<float*>(row + layout.scale)[begin / span] = scale.scale;
      quantize_span(x + begin, n, scale, reinterpret_cast<int16_t*>(row) + begin);
    }
  }
}

// The fused ops are what they stand for, one op after another.
void norm_quantize(const ExecContext& exec, const NormQuantizeArgs& a) {
  std::vector<float> memory(static_cast<size_t>(a.x.rows * a.x.cols));
  const MatF y = a.y.data != nullptr ? a.y : MatF{memory.data(), a.x.rows, a.x.cols, a.x.cols};
  const ConstMatF x{a.x.data, a.x.rows, a.x.cols, a.x.stride};
  if (a.added.data != nullptr) add(exec, {a.added, a.x});
  if (a.kind == NormKind::kRms) {
    rms_norm(exec, {x, a.weight, a.eps, y});
  } else {
    layer_norm(exec, {x, a.weight, a.bias, a.eps, y});
  }
  quantize(exec, {{y.data, y.rows, y.cols, y.stride}, a.out});
}

void activate_quantize(const ExecContext& exec, const ActivateQuantizeArgs& a) {
  const int64_t rows = a.x.rows, cols = a.out.cols;
  std::vector<float> memory(static_cast<size_t>(rows * cols));
  const MatF y{memory.data(), rows, cols, cols};
  if (a.function == ActivationFunction::kSiluAndMul) {
    silu_and_mul(exec, {a.x, y});
  } else {
    for (int64_t t = 0; t < rows; ++t)
      std::copy_n(a.x.data + t * a.x.stride, cols, y.data + t * cols);
    relu(exec, {y});
  }
  quantize(exec, {{y.data, rows, cols, cols}, a.out});
}

void linear(const ExecContext&, const LinearArgs& args) {
  std::vector<double> x;
  for (int64_t t = 0; t < args.x.rows; ++t) {
    prepared_row(args.x, t, &x);
    int64_t column = 0;
    for (int32_t s = 0; s < args.num_segments; ++s) {
      const PackedMatrix& w = args.segments[s];
      std::vector<float> weights(w.k);
      for (int64_t n = 0; n < w.n; ++n, ++column) {
        dequantize_row(w, n, weights.data());
        double sum = 0;
        for (int64_t k = 0; k < w.k; ++k) sum += x[k] * weights[k];
        if (args.bias != nullptr && !mutant("kernels_ref_linear_forgets_bias"))
          sum += args.bias[column];
        float* y = args.y.data + t * args.y.stride + column;
        *y = static_cast<float>(args.add_to_y ? *y + sum : sum);
      }
    }
  }
}

void embedding(const ExecContext&, const EmbeddingArgs& args) {
  for (int64_t t = 0; t < args.out.rows; ++t) {
    dequantize_row(args.table, args.ids[t], args.out.data + t * args.out.stride);
  }
}

}  // namespace quire::ref
