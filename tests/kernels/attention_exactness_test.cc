// The bits of a token's attention do not depend on how its step was cut: whole, chunked, one token
// at a time, among other sequences; any block size, any number of threads.
#include <cmath>
#include <limits>
#include <string>

#include "base/mutants.h"
#include "kernels/kv_testing.h"

namespace quire::testing {
namespace {

// Output rows of positions [0, length) of a sequence computed in chunks.
std::vector<float> in_chunks(
    const OpTable& ops, Exec& exec, AttentionCase c, int32_t length, int32_t chunk) {
  std::vector<float> all;
  for (int32_t done = 0; done < length; done += chunk) {
    const int32_t end = std::min(length, done + chunk);
    c.seqs = {{end, end - done}};
    AttentionInputs inputs(c, 7);
    const std::vector<float> rows = attend(ops, exec, inputs);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

void check_chunks(const AttentionCase& c, int32_t length, const std::vector<int32_t>& chunks) {
  Exec one(1);
  Exec three(3);
  for (const IsaLevel& level : levels_here()) {
    SCOPED_TRACE(std::string(level.name) + " " + describe(c));
    const std::vector<float> whole = in_chunks(*level.ops, one, c, length, length);
    for (int32_t chunk : chunks) {
      SCOPED_TRACE("chunks of " + std::to_string(chunk));
      expect_same_bits(in_chunks(*level.ops, three, c, length, chunk), whole);
    }
  }
}

TEST(AttentionExactness, ChunksGiveTheBitsOfTheWholePrefill) {
  check_chunks({.heads = 3, .kv_heads = 1, .dim = 32}, 150, {1, 2, 7, 16, 64, 149});
}

TEST(AttentionExactness, ChunksAcrossPartialsGiveTheSameBits) {
  check_chunks({.heads = 2, .kv_heads = 1, .dim = 32}, 1100, {300, 511, 64});
}

TEST(AttentionExactness, ChunksWithAWindowGiveTheSameBits) {
  for (int32_t window : {1, 33, 64, 100}) {
    check_chunks({.heads = 4, .kv_heads = 2, .dim = 40, .window = window}, 140, {1, 7, 65});
  }
}

TEST(AttentionExactness, ChunksGiveTheSameBitsForEveryKvType) {
  for (DType type : {DType::kF32, DType::kBF16}) {
    check_chunks({.heads = 4, .kv_heads = 4, .dim = 64, .dtype = type}, 100, {1, 6, 70});
  }
}

TEST(AttentionExactness, EveryBlockSizeGivesTheSameBits) {
  Exec two(2);
  for (const IsaLevel& level : levels_here()) {
    AttentionCase c{.heads = 6, .kv_heads = 2, .dim = 64};
    for (int32_t queries : {1, 2, 90}) {
      std::vector<float> first;
      for (int32_t b : {1, 2, 4, 8, 16, 32, 64, 128, 256}) {
        SCOPED_TRACE(std::string(level.name) + " B" + std::to_string(b));
        c.block_size = b;
        c.seqs = {{700, queries}};
        AttentionInputs inputs(c, 11);
        const std::vector<float> out = attend(*level.ops, two, inputs);
        if (first.empty()) first = out;
        if (mutant("attention_exactness_inputs")) first[0] += 1e-6F;
        expect_same_bits(out, first);
      }
    }
  }
}

// Contiguous regions are read without their table: whole sequences, partials (of 512 tokens) and
// tables in which one block alone lies elsewhere.
TEST(AttentionExactness, RunsOfBlocksGiveTheBitsOfScatteredOnes) {
  Exec two(2);
  for (const IsaLevel& level : levels_here()) {
    for (const int32_t window : {0, 100}) {
      for (const int32_t queries : {1, 90}) {
        AttentionCase c{.heads = 6, .kv_heads = 2, .window = window, .seqs = {{700, queries}}};
        AttentionInputs scattered(c, 23);
        const std::vector<float> want = attend(*level.ops, two, scattered);
        for (const int32_t run : {3, 20, 31, 32, 43, 44, 1000}) {
          c.run_blocks = run;
          SCOPED_TRACE(std::string(level.name) + " " + describe(c));
          AttentionInputs inputs(c, 23);
          expect_same_bits(attend(*level.ops, two, inputs), want);
        }
      }
    }
  }
}

TEST(AttentionExactness, BatchMatesDoNotChangeBits) {
  Exec two(2);
  for (const IsaLevel& level : levels_here()) {
    AttentionCase alone{.heads = 6, .kv_heads = 2, .seqs = {{600, 3}}};
    AttentionInputs inputs(alone, 13);
    const std::vector<float> want = attend(*level.ops, two, inputs);
    AttentionCase batch = alone;
    batch.seqs = {{600, 3}, {100, 100}, {300, 1}, {1, 1}};
    AttentionInputs together(batch, 13);
    const std::vector<float> got = attend(*level.ops, two, together);
    expect_same_bits({got.begin(), got.begin() + static_cast<int64_t>(want.size())}, want);
  }
}

TEST(AttentionExactness, SplittingALongDecodeOverThreadsDoesNotChangeBits) {
  for (const IsaLevel& level : levels_here()) {
    AttentionCase c{.heads = 3, .kv_heads = 1, .dim = 64, .seqs = {{5000, 1}, {1300, 2}}};
    AttentionInputs inputs(c, 17);
    Exec one(1);
    const std::vector<float> want = attend(*level.ops, one, inputs);
    for (int threads : {2, 3, 5}) {
      Exec exec(threads);
      for (int i = 0; i < 20; ++i) expect_same_bits(attend(*level.ops, exec, inputs), want);
    }
  }
}

// An infinity in a value that a row does not see must not reach the row, although rows of one tile
// share the tile's values.
TEST(AttentionExactness, AnInfiniteValueReachesOnlyTheRowsThatSeeIt) {
  Exec one(1);
  for (const IsaLevel& level : levels_here()) {
    AttentionCase c{.heads = 2, .kv_heads = 1, .dim = 32, .dtype = DType::kF32, .seqs = {{90, 90}}};
    AttentionInputs inputs(c, 19);
    const std::vector<float> want = attend(*level.ops, one, inputs);
    inputs.set_values(0, 77, std::numeric_limits<float>::infinity());
    const std::vector<float> got = attend(*level.ops, one, inputs);
    const int64_t seen = int64_t{77} * c.heads * c.dim;
    expect_same_bits({got.begin(), got.begin() + seen}, {want.begin(), want.begin() + seen});
    EXPECT_FALSE(std::isfinite(got[seen]));
  }
}

}  // namespace
}  // namespace quire::testing
