#include "engine/token_counts.h"

#include <algorithm>

#include "base/hash.h"

namespace quire {

void TokenCounts::reset(std::span<const int32_t> tokens, int num_prompt) {
  entries_.clear();
  index_.assign(64, 0);
  for (size_t i = 0; i < tokens.size(); ++i) {
    Entry& entry = find_or_insert(tokens[i]);
    if (static_cast<int>(i) >= num_prompt) ++entry.num_output;
  }
}

TokenCounts::Entry& TokenCounts::find_or_insert(int32_t token) {
  if (entries_.size() * 2 >= index_.size()) grow();
  const size_t mask = index_.size() - 1;
  size_t place = mix64(static_cast<uint32_t>(token)) & mask;
  while (index_[place] != 0) {
    Entry& entry = entries_[index_[place] - 1];
    if (entry.token == token) return entry;
    place = (place + 1) & mask;
  }
  entries_.push_back({token});
  index_[place] = static_cast<int32_t>(entries_.size());
  return entries_.back();
}

void TokenCounts::grow() {
  index_.assign(std::max<size_t>(64, index_.size() * 2), 0);
  const size_t mask = index_.size() - 1;
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t place = mix64(static_cast<uint32_t>(entries_[i].token)) & mask;
    while (index_[place] != 0) place = (place + 1) & mask;
    index_[place] = static_cast<int32_t>(i + 1);
  }
}

}  // namespace quire
