// The chained content hash of full KV blocks: a block's hash covers its tokens and, through its
// parent's hash, everything before them. The same in every process.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace quire {

// Where a chain starts: what must be equal besides the tokens for two requests to share KV.
inline uint64_t root_hash(std::string_view salt) { return hash_string(salt); }

inline uint64_t block_hash(uint64_t parent_hash, std::span<const int32_t> tokens) {
  return hash_tokens(parent_hash, tokens);
}

// Appends the hashes of the full blocks of `tokens` that *hashes does not have yet.
inline void extend_block_hashes(uint64_t root,
                                std::span<const int32_t> tokens,
                                int block_size,
                                std::vector<uint64_t>* hashes) {
  while ((hashes->size() + 1) * block_size <= tokens.size()) {
    const uint64_t parent = hashes->empty() ? root : hashes->back();
    hashes->push_back(block_hash(parent, tokens.subspan(hashes->size() * block_size, block_size)));
  }
}

}  // namespace quire
