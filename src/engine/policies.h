// The memory and batching policies that the PagedAttention paper (Kwon et al., SOSP 2023, sections
// 3 and 6.1) compares with, as settings of the one scheduler: same kernels, same cost of a step, so
// that a comparison shows the idea alone. For experiments; paged and continuous are the product.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quire {

// Who holds how much KV memory, and when. All but paged and off reserve contiguous regions with a
// buddy allocator: block tables with consecutive entries. Sharing and prefix caching are paged's.
enum class KvPolicy : uint8_t {
  kPaged,   // blocks on demand
  kMax,     // a region for max_model_len tokens, at admission (FasterTransformer, Orca Max)
  kPow2,    // prompt + the output's true length rounded up to a power of two (Orca Pow2)
  kOracle,  // prompt + the output's true length (Orca Oracle)
  kGrow,    // exactly what there is; each block more is a new region and a copy of everything
            // (Hugging Face Transformers: concatenation)
  kOff,     // no KV is kept from one step to the next: every step computes everything again
};

enum class Batching : uint8_t {
  kContinuous,  // requests join and leave at every step (Orca)
  kDynamic,     // a batch starts when batch_size requests wait, or the first has waited a while;
                // it runs until its last member ends
  kStatic,      // the same, but it starts as soon as the batch before it has ended
};

inline constexpr std::array<std::string_view, 6> kKvPolicyNames = {
    "paged", "max", "pow2", "oracle", "grow", "off"};
inline constexpr std::array<std::string_view, 3> kBatchingNames = {
    "continuous", "dynamic", "static"};

constexpr std::optional<KvPolicy> parse_kv_policy(std::string_view name) {
  for (size_t i = 0; i < kKvPolicyNames.size(); ++i) {
    if (kKvPolicyNames[i] == name) return static_cast<KvPolicy>(i);
  }
  return std::nullopt;
}
constexpr std::optional<Batching> parse_batching(std::string_view name) {
  for (size_t i = 0; i < kBatchingNames.size(); ++i) {
    if (kBatchingNames[i] == name) return static_cast<Batching>(i);
  }
  return std::nullopt;
}
constexpr std::string_view name_of(KvPolicy policy) {
  return kKvPolicyNames[static_cast<size_t>(policy)];
}
constexpr std::string_view name_of(Batching batching) {
  return kBatchingNames[static_cast<size_t>(batching)];
}

// Are sequences given regions at admission, of consecutive blocks?
constexpr bool is_contiguous(KvPolicy policy) {
  return policy != KvPolicy::kPaged && policy != KvPolicy::kOff;
}
// Is the length of the output told in advance, and then its limit?
constexpr bool knows_output(KvPolicy policy) {
  return policy == KvPolicy::kPow2 || policy == KvPolicy::kOracle;
}

}  // namespace quire
