// How often each token occurred in one sequence: a hash table of the distinct tokens, so that
// penalties cost what the sequence holds and not what the vocabulary holds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quire {

class TokenCounts {
 public:
  struct Entry {
    int32_t token;
    int32_t num_output = 0;  // occurrences in the output; 0: in the prompt only
  };
  void reset(std::span<const int32_t> tokens, int num_prompt);
  void add_output(int32_t token) { ++find_or_insert(token).num_output; }
  std::span<const Entry> entries() const { return entries_; }

 private:
  Entry& find_or_insert(int32_t token);
  void grow();
  std::vector<Entry> entries_;
  std::vector<int32_t> index_;  // open addressing: 1 + place in entries_, 0 = empty
};

}  // namespace quire
