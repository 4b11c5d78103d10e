// Large buffers, and how much memory there is.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace quire {

struct MemoryFacts {
  int64_t total_bytes;      // of the machine, or the cgroup's limit where that is less
  int64_t available_bytes;  // what can be allocated now without swapping, within that limit
};
// `root` is put before /proc and /sys (tests give a folder).
MemoryFacts memory_facts(const std::string& root = "");
// The largest resident size this process has had.
int64_t peak_resident_bytes();
// "1.50 GiB", "96.0 MiB", "512 bytes".
std::string format_bytes(int64_t bytes);

// Zeroed memory for weights, KV and scratch: aligned to 2 MiB and on huge pages where the size is
// worth it (4 KiB pages cost 13 % of read bandwidth), else to 4 KiB. Move-only.
class HugeBuffer {
 public:
  HugeBuffer() = default;
  // `purpose` names the buffer in the error: "KV cache". Refuses what exceeds the available memory
  // instead of letting the kernel kill the process at first touch.
  static Result<HugeBuffer> allocate(int64_t bytes, const std::string& purpose);
  HugeBuffer(HugeBuffer&& other) noexcept { swap(other); }
  HugeBuffer& operator=(HugeBuffer&& other) noexcept {
    HugeBuffer(std::move(other)).swap(*this);
    return *this;
  }
  ~HugeBuffer();

  // What a buffer of `bytes` takes when all of it is written: whole pages.
  static int64_t page_bytes(int64_t bytes);

  unsigned char* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void swap(HugeBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
  }

  unsigned char* data_ = nullptr;
  int64_t size_ = 0;
  int64_t mapped_bytes_ = 0;
};

}  // namespace quire
