#include "base/memory.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>

#include "base/cgroup.h"
#include "base/mutants.h"

namespace quire {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;
// Below this an allocation is not worth reading /proc for.
constexpr int64_t kCheckedBytes = 64 << 20;

// The value of "key:   N kB" in /proc/meminfo, in bytes; -1 when absent.
int64_t meminfo(const std::string& root, const std::string& key) {
  std::ifstream in(root + "/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (in >> name >> kib) {
    std::getline(in, unit);
    if (name == key + ":") return kib * 1024;
  }
  return -1;
}

Status too_large(int64_t bytes, const std::string& purpose, const std::string& why) {
  return resource_exhausted(purpose + " needs " + format_bytes(bytes) + " (" +
                            std::to_string(bytes) + " bytes), but " + why +
                            "; ask for less or free memory");
}

}  // namespace

MemoryFacts memory_facts(const std::string& root) {
  const int64_t unknown = std::numeric_limits<int64_t>::max();
  int64_t total = meminfo(root, "MemTotal");
  int64_t available = meminfo(root, "MemAvailable");
  if (total < 0) total = unknown;
  if (available < 0) available = total;
  const CgroupLimits limits = cgroup_limits(root);
  if (limits.memory_bytes) {
    total = std::min(total, *limits.memory_bytes);
    available =
        std::min(available, std::max<int64_t>(0, *limits.memory_bytes - limits.memory_used_bytes));
  }
  return {total, available};
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

std::string format_bytes(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  char text[64];
  if (bytes >= int64_t{1} << 30) {
    std::snprintf(text, sizeof(text), "%.2f GiB", value / (1 << 30));
  } else if (bytes >= 1 << 20) {
    std::snprintf(text, sizeof(text), "%.1f MiB", value / (1 << 20));
  } else if (bytes >= 1 << 10) {
    std::snprintf(text, sizeof(text), "%.1f KiB", value / (1 << 10));
  } else {
    std::snprintf(text, sizeof(text), "%lld bytes", static_cast<long long>(bytes));
  }
  return text;
}

int64_t HugeBuffer::page_bytes(int64_t bytes) {
  const int64_t unit = bytes >= kHugePage ? kHugePage : kPage;
  return (bytes + unit - 1) / unit * unit;
}

Result<HugeBuffer> HugeBuffer::allocate(int64_t bytes, const std::string& purpose) {
  HugeBuffer buffer;
  if (bytes == 0) return buffer;
  QUIRE_CHECK(bytes > 0);
  if (bytes >= kCheckedBytes) {
    const int64_t available = memory_facts().available_bytes;
    if (bytes > available && !mutant("base_memory_overcommitted")) {
      return too_large(bytes, purpose, "only " + format_bytes(available) + " are available");
    }
  }
  const bool huge = bytes >= kHugePage;
  const int64_t rounded = page_bytes(bytes);
  const int64_t reserved = huge ? rounded + kHugePage : rounded;
  void* base = mmap(nullptr,
                    static_cast<size_t>(reserved),
                    PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1,
                    0);
  if (base == MAP_FAILED) {
    return too_large(bytes, purpose, std::string("the system refused: ") + std::strerror(errno));
  }
  auto* begin = static_cast<unsigned char*>(base);
  if (huge) {  // give back what lies before and after the aligned range
    const auto address = reinterpret_cast<uintptr_t>(begin);
    const auto skip = static_cast<int64_t>((kHugePage - address % kHugePage) % kHugePage);
    if (skip > 0) munmap(begin, static_cast<size_t>(skip));
    begin += skip;
    const int64_t rest = reserved - skip - rounded;
    if (rest > 0) munmap(begin + rounded, static_cast<size_t>(rest));
    (void)madvise(begin, static_cast<size_t>(rounded), MADV_HUGEPAGE);  // a wish, not a need
  }
  buffer.data_ = begin;
  buffer.size_ = bytes;
  buffer.mapped_bytes_ = rounded;
  return buffer;
}

HugeBuffer::~HugeBuffer() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(mapped_bytes_));
}

}  // namespace quire
