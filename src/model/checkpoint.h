// The tensors of a checkpoint: where each lies in which file. Readers: gguf.h, safetensors.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "model/input_file.h"
#include "tensor/dtype.h"

namespace quire {

struct TensorInfo {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;  // row-major, outermost first: [n, k] of a matrix y = x W^T
  int file;                    // index into the checkpoint's files
  int64_t offset, bytes;       // in that file
};

// "[576, 1536]"
std::string shape_to_string(std::span<const int64_t> shape);
// Bytes of a tensor, or nullopt-like -1 when the product overflows or the innermost dimension is
// not a multiple of the format's block.
int64_t tensor_bytes(DType dtype, std::span<const int64_t> shape);

class Checkpoint {
 public:
  static constexpr int64_t kMaxTensors = 1 << 20;

  int add_file(InputFile file);
  // Refuses a repeated name, and a range outside its file.
  Status add_tensor(TensorInfo info);
  // Refuses tensors that share bytes; call once after the last add_tensor().
  Status check_no_overlap() const;

  std::span<const TensorInfo> tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;
  std::span<const InputFile> files() const { return files_; }

  // Bytes [offset, offset + size) of a tensor. Safe from any thread.
  Status read(const TensorInfo& tensor, int64_t offset, int64_t size, void* destination) const;
  // kDataLoss when a file changed since it was opened.
  Status check_unchanged() const;

 private:
  std::vector<InputFile> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace quire
