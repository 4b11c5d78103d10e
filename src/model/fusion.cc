#include "model/fusion.h"

namespace quire {
namespace {

constexpr const char* kNames[kNumFusions] = {"norm-qkv", "attention", "norm-mlp", "bias-residual"};

Fusion fusion_at(int i) { return static_cast<Fusion>(i); }

}  // namespace

const char* fusion_name(Fusion fusion) { return kNames[static_cast<int>(fusion)]; }

std::string fusion_names() {
  std::string names;
  for (const char* name : kNames) names.append(names.empty() ? "" : ",").append(name);
  return names;
}

Result<FusionSet> FusionSet::parse(std::string_view text) {
  if (text == "on") return all();
  if (text == "off") return none();
  FusionSet set = none();
  for (std::string_view rest = text;;) {
    const size_t comma = rest.find(',');
    const std::string_view name = rest.substr(0, comma);
    int i = 0;
    while (i < kNumFusions && name != kNames[i]) ++i;
    if (i == kNumFusions) {
      return invalid_argument("--fusion must be on, off or a list of " + fusion_names() +
                              "; got '" + std::string(text) + "', where '" + std::string(name) +
                              "' is none of them");
    }
    set = set.with(fusion_at(i));
    if (comma == std::string_view::npos) return set;
    rest.remove_prefix(comma + 1);
  }
}

FusionSet FusionSet::supported_by(const OpTable& ops) const {
  FusionSet set = *this;
  if (ops.norm_quantize == nullptr) {
    set = set.without(Fusion::kNormQkv).without(Fusion::kNormMlp);
  }
  if (ops.activate_quantize == nullptr) set = set.without(Fusion::kNormMlp);
  if (ops.attention_scores == nullptr || ops.attention_softmax == nullptr ||
      ops.attention_values == nullptr) {
    set = set.with(Fusion::kAttention);
  }
  return set;
}

std::string FusionSet::to_string() const {
  if (*this == all()) return "on";
  std::string names;
  for (int i = 0; i < kNumFusions; ++i) {
    if (has(fusion_at(i))) names.append(names.empty() ? "" : ",").append(kNames[i]);
  }
  return names.empty() ? "off" : names;
}

}  // namespace quire
