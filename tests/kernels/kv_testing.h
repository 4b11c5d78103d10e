// A paged KV cache for tests: blocks in shuffled order or in runs, what no sequence owns poisoned
// with NaN, table entries beyond a sequence's blocks garbage.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/op_testing.h"

namespace quire::testing {

// A sequence of an attention call: the last num_queries of kv_len tokens are this step's.
struct TestSequence {
  int32_t kv_len;
  int32_t num_queries;
};

struct AttentionCase {
  int32_t heads = 4;
  int32_t kv_heads = 2;
  int32_t dim = 64;
  int32_t block_size = 16;
  DType dtype = DType::kF16;
  int32_t window = 0;
  std::vector<TestSequence> seqs = {};
  int32_t run_blocks = 1;  // blocks whose ids follow one another; 1: all in random order
};
std::string describe(const AttentionCase& c);

// The inputs of one attention call. Keys and values of (sequence index, position) and queries of
// (sequence index, position) come from a seed, whatever the chunking or block size, so that two
// calls that cover the same positions have the same rows.
class AttentionInputs {
 public:
  AttentionInputs(const AttentionCase& c, uint64_t seed);

  AttentionArgs args(FencedMatrix& out);
  FencedMatrix make_out() const { return FencedMatrix(tokens_, case_.heads * case_.dim); }
  const AttentionCase& shape() const { return case_; }
  int64_t tokens() const { return tokens_; }
  // Overwrites the value (not the key) of one cached token with `x` in every head and dimension.
  void set_values(int32_t seq, int32_t position, float x);

 private:
  int64_t slot(int32_t seq, int32_t position) const;
  void write(int32_t seq, int32_t position, FencedMatrix& k, FencedMatrix& v);

  AttentionCase case_;
  KvLayout layout_;
  int64_t tokens_ = 0;
  int32_t table_stride_ = 0;
  std::vector<int32_t> query_start_, kv_len_, tables_;
  std::vector<unsigned char> kv_;
  FencedMatrix q_;
};

// out of `ops` for these inputs; checks the fence.
std::vector<float> attend(const OpTable& ops, Exec& exec, AttentionInputs& inputs);

}  // namespace quire::testing
