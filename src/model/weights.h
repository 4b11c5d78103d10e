// Weights on their way from a checkpoint into packed memory.
//
// An architecture's constructor asks for each weight by our name and gets a view of memory that is
// not yet filled. It runs twice: over a measuring loader, which tells every byte the weights will
// take, and over one with exactly that memory; finish() then streams the checkpoint into it, panel
// by panel on several threads, so that beside the packed weights only a few MiB are resident.
// Errors are collected, so that one message names everything that is missing.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "kernels/ops.h"
#include "model/architecture.h"
#include "model/checkpoint.h"
#include "model/layers.h"
#include "model/loader.h"

namespace quire {

// (bytes done, bytes in all) of the checkpoint; called from one thread at a time.
using LoadProgress = std::function<void(int64_t, int64_t)>;

class WeightLoader {
 public:
  // One named piece of a fused matrix.
  struct Segment {
    const char* name;
    int64_t rows;
    int rotary_heads = 0;  // heads whose rows rotary embedding pairs: 0 for all but q and k
  };

  // Counts only: its views are addresses that must not be touched, and it cannot finish().
  static WeightLoader measuring(const Checkpoint& checkpoint,
                                CheckpointFormat format,
                                const Architecture& architecture);
  // With memory for `bytes` of packed weights.
  static Result<WeightLoader> create(const Checkpoint& checkpoint,
                                     CheckpointFormat format,
                                     const Architecture& architecture,
                                     int64_t bytes);

  // Segments' output columns follow one another; each has k inputs.
  Linear linear(int layer, std::initializer_list<Segment> segments, int64_t k, bool bias);
  // rows [first_row, first_row + rows) of a table [first_row + rows, k] that is looked up by id.
  PackedMatrix table(const char* name, int64_t rows, int64_t k, int64_t first_row = 0);
  // A matrix of its own, or the packed embedding itself when tied.
  Linear lm_head(int64_t vocab, int64_t k, const PackedMatrix& embedding, bool tied);
  Norm rms_norm(int layer, const char* name, int64_t size, double eps);
  Norm layer_norm(int layer, const char* name, int64_t size, double eps);

  // Everything asked for is there, in a shape and a type that can be used.
  Status check_requests() const;
  int64_t bytes_used() const { return used_; }
  // The same bytes by group and by type in memory, in the order in which they were asked for.
  std::vector<PackedGroup> packed_groups() const;
  // Reads and packs everything asked for; gives the memory that the views point into.
  Result<HugeBuffer> finish(int num_threads, const LoadProgress& progress);

 private:
  // A matrix to pack, or (rows == 1, is_vector) a vector to convert to f32.
  struct Job {
    const TensorInfo* tensor;
    int64_t first_row, rows, cols;
    int64_t rope_head_dim;  // > 0: rows are interleaved pairs, to be put in half-split order
    bool is_vector;
    unsigned char* destination;
  };
  // Panels [begin, end) of a job: what one thread does at a time.
  struct Piece {
    const Job* job;
    int64_t begin, end;
  };
  struct Buffers;

  WeightLoader(const Checkpoint& checkpoint, CheckpointFormat format, const Architecture& arch)
      : checkpoint_(checkpoint), format_(format), architecture_(arch) {}

  const TensorInfo* want(const std::string& name, std::initializer_list<int64_t> shape);
  unsigned char* place(int64_t bytes);
  PackedMatrix matrix(
      const std::string& name, int64_t rows, int64_t k, int64_t first_row, int rotary_heads);
  void vector_into(const std::string& name, int64_t size, int rotary_heads, float* destination);
  float* vector(const std::string& name, int64_t size);
  std::vector<Piece> cut_into_pieces() const;
  Status load_piece(const Piece& piece, Buffers& buffers) const;
  Status load_vector(const Job& job, Buffers& buffers) const;
  Status read_rows(const Job& job, int64_t row, int64_t count, Buffers& buffers) const;

  const Checkpoint& checkpoint_;
  CheckpointFormat format_;
  const Architecture& architecture_;
  HugeBuffer buffer_;
  unsigned char* base_ = nullptr;
  int64_t capacity_ = 0, used_ = 0;
  std::vector<Job> jobs_;
  std::vector<std::string> missing_;
  std::vector<std::string> wrong_;
};

}  // namespace quire
