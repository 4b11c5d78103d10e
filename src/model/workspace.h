// Activations of one step: a bump arena over one buffer. Everything a forward pass allocates dies
// with the scope it was allocated in; nothing is freed singly.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "base/memory.h"
#include "base/status.h"
#include "kernels/ops.h"

namespace quire {

class Workspace {
 public:
  static constexpr int64_t kAlignment = 64;

  static Result<Workspace> allocate(int64_t bytes) {
    Workspace workspace;
    QUIRE_ASSIGN_OR_RETURN(workspace.buffer_,
                           HugeBuffer::allocate(std::max<int64_t>(bytes, kAlignment),
                                                "activations (lower --max-num-batched-tokens)"));
    workspace.base_ = workspace.buffer_.data();
    workspace.capacity_ = bytes;
    return workspace;
  }

  // Hands out addresses that must not be touched and only counts: a forward pass over it with ops
  // that do nothing tells how large a workspace has to be (DecoderModel::workspace_bytes).
  static Workspace measuring() {
    Workspace workspace;
    workspace.base_ = reinterpret_cast<unsigned char*>(kAlignment);
    workspace.capacity_ = INT64_MAX / 2;
    return workspace;
  }

  unsigned char* bytes(int64_t count) {
    const int64_t start = used_;
    used_ += (count + kAlignment - 1) / kAlignment * kAlignment;
    peak_ = std::max(peak_, used_);
    QUIRE_CHECK_MSG(used_ <= capacity_, "the step is larger than the workspace was sized for");
    return base_ + start;
  }

  MatF matrix(int64_t rows, int64_t cols) {
    return {reinterpret_cast<float*>(bytes(rows * cols * 4)), rows, cols, cols};
  }

  int64_t peak_bytes() const { return peak_; }
  int64_t capacity() const { return capacity_; }
  void reset() { used_ = 0; }

  // Gives back, at its end, what was allocated since its start.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), mark_(workspace.used_) {}
    ~Scope() { workspace_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    int64_t mark_;
  };

 private:
  Workspace() = default;

  HugeBuffer buffer_;
  unsigned char* base_ = nullptr;
  int64_t capacity_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace quire
