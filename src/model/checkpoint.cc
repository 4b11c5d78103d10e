#include "model/checkpoint.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace quire {

std::string shape_to_string(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

int64_t tensor_bytes(DType dtype, std::span<const int64_t> shape) {
  const DTypeInfo& info = dtype_info(dtype);
  int64_t count = 1;
  for (int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count)) return -1;
  }
  if (info.elems > 1 && (shape.empty() || shape.back() % info.elems != 0)) return -1;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count / info.elems, static_cast<int64_t>(info.bytes), &bytes)) {
    return -1;
  }
  return bytes;
}

int Checkpoint::add_file(InputFile file) {
  files_.push_back(std::move(file));
  return static_cast<int>(files_.size()) - 1;
}

Status Checkpoint::add_tensor(TensorInfo info) {
  const InputFile& file = files_[static_cast<size_t>(info.file)];
  if (static_cast<int64_t>(tensors_.size()) >= kMaxTensors) {
    return data_loss("more than " + std::to_string(kMaxTensors) + " tensors");
  }
  if (info.offset < 0 || info.bytes < 0 || info.offset > file.size() ||
      info.bytes > file.size() - info.offset) {
    return data_loss("tensor " + info.name + " needs " + std::to_string(info.bytes) + " bytes at " +
                     std::to_string(info.offset) + ", but " + file.name() + " has only " +
                     std::to_string(file.size()) +
                     "; the file is truncated or damaged, fetch it again");
  }
  if (!index_.emplace(info.name, tensors_.size()).second) {
    return data_loss("tensor " + info.name + " is listed twice");
  }
  tensors_.push_back(std::move(info));
  return Status();
}

Status Checkpoint::check_no_overlap() const {
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const TensorInfo &x = tensors_[a], &y = tensors_[b];
    return std::tie(x.file, x.offset, x.bytes) < std::tie(y.file, y.offset, y.bytes);
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorInfo &before = tensors_[order[i - 1]], &after = tensors_[order[i]];
    if (before.file == after.file && after.offset < before.offset + before.bytes) {
      return data_loss("tensors " + before.name + " and " + after.name + " overlap in " +
                       files_[static_cast<size_t>(after.file)].name() +
                       "; the file is damaged, fetch it again");
    }
  }
  return Status();
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  auto it = index_.find(std::string(name));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

Status Checkpoint::read(const TensorInfo& tensor,
                        int64_t offset,
                        int64_t size,
                        void* destination) const {
  QUIRE_CHECK(offset >= 0 && size >= 0 && offset <= tensor.bytes && size <= tensor.bytes - offset);
  return files_[static_cast<size_t>(tensor.file)].read(tensor.offset + offset, size, destination);
}

Status Checkpoint::check_unchanged() const {
  for (const InputFile& file : files_) QUIRE_RETURN_IF_ERROR(file.check_unchanged());
  return Status();
}

}  // namespace quire
