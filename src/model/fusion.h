// Which neighbouring ops of a step run as one. On the CPU levels the answers have the same bits
// either way (the reference backend rounds less often where ops are fused): what is switched off is
// for comparison, and for op tables without the fused op.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "kernels/ops.h"

namespace quire {

// The four fusions of serving systems since FasterTransformer and DeepSpeed-Inference
// (arXiv:2207.00032, section III).
enum class Fusion : uint8_t {
  kNormQkv,       // residual sum + norm + quantisation of the rows that q, k and v (and, behind the
                  // last layer, the logits) are made of
  kAttention,     // scores + softmax + values, without a score in memory
  kNormMlp,       // residual sum + norm + quantisation before the first matrix of the feed-forward,
                  // and its activation function + quantisation behind it
  kBiasResidual,  // matrix + bias + residual sum
};
inline constexpr int kNumFusions = 4;
const char* fusion_name(Fusion fusion);  // as in --fusion: "norm-qkv"
std::string fusion_names();              // of all, with commas

class FusionSet {
 public:
  static FusionSet all() { return FusionSet((1 << kNumFusions) - 1); }
  static FusionSet none() { return FusionSet(0); }
  // "on", "off", or names with commas between them. The error names what is allowed.
  static Result<FusionSet> parse(std::string_view text);

  bool has(Fusion fusion) const { return (bits_ >> static_cast<int>(fusion) & 1) != 0; }
  FusionSet with(Fusion fusion) const { return FusionSet(bits_ | 1 << static_cast<int>(fusion)); }
  FusionSet without(Fusion fusion) const {
    return FusionSet(bits_ & ~(1 << static_cast<int>(fusion)));
  }
  // These, as far as a table has the ops: where a fused op is null, those that it stands for run,
  // and where those are null, the fused one.
  FusionSet supported_by(const OpTable& ops) const;
  std::string to_string() const;  // what parse() takes
  bool operator==(const FusionSet&) const = default;

 private:
  explicit FusionSet(int bits) : bits_(bits) {}
  int bits_;
};

}  // namespace quire
