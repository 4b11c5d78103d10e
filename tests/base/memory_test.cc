#include "base/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/cgroup.h"
#include "base/mutants.h"

namespace quire {
namespace {

// A folder that stands for / with the files of a container.
class FakeRoot {
 public:
  FakeRoot() {
    root_ = std::filesystem::path(::testing::TempDir()) / "quire_fake_root";
    std::filesystem::remove_all(root_);
  }
  ~FakeRoot() { std::filesystem::remove_all(root_); }
  FakeRoot& file(const std::string& path, const std::string& text) {
    const auto full = root_ / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
    return *this;
  }
  std::string path() const { return root_.string(); }

 private:
  std::filesystem::path root_;
};

constexpr char kMeminfo[] =
    "MemTotal:       24576000 kB\nMemFree:         100000 kB\nMemAvailable:   20480000 kB\n"
    "HugePages_Total:       0\nCached: 5 kB\n";

TEST(Cgroup, ReadsTheTightestLimitsOfVersion2) {
  FakeRoot root;
  root.file("proc/self/cgroup", "0::/a/b\n")
      .file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
      .file("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
      .file("sys/fs/cgroup/a/b/memory.max", "4000000000\n")
      .file("sys/fs/cgroup/a/b/memory.current", "1500000000\n")
      .file("sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 500000000\n")
      .file("sys/fs/cgroup/a/memory.max", "max\n");
  const CgroupLimits limits = cgroup_limits(root.path());
  EXPECT_EQ(limits.cpus, mutant("cgroup_ignored") ? std::nullopt : std::optional(1.5));
  EXPECT_EQ(limits.memory_bytes, 4000000000);
  EXPECT_EQ(limits.memory_used_bytes, 1000000000);
}

TEST(Cgroup, ReadsVersion1AndTakesItsHugeDefaultForNoLimit) {
  FakeRoot root;
  root.file("proc/self/cgroup", "7:cpu,cpuacct:/x\n6:memory:/x\n")
      .file("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "300000\n")
      .file("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
      .file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
      .file("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
  const CgroupLimits limits = cgroup_limits(root.path());
  EXPECT_EQ(limits.cpus, 3.0);
  EXPECT_FALSE(limits.memory_bytes.has_value());
}

TEST(Cgroup, FindsNoLimitsWithoutFilesOrInGarbage) {
  FakeRoot root;
  EXPECT_FALSE(cgroup_limits(root.path()).cpus.has_value());
  root.file("proc/self/cgroup", "garbage\n0:\n0::/../x\n::\n")
      .file("sys/fs/cgroup/cpu.max", "lots of\n")
      .file("sys/fs/cgroup/memory.max", "-\n");
  EXPECT_FALSE(cgroup_limits(root.path()).cpus.has_value());
  EXPECT_FALSE(cgroup_limits(root.path()).memory_bytes.has_value());
}

TEST(Memory, TakesTheSmallerOfMachineAndContainer) {
  FakeRoot root;
  root.file("proc/meminfo", kMeminfo);
  EXPECT_EQ(memory_facts(root.path()).total_bytes, int64_t{24576000} * 1024);
  EXPECT_EQ(memory_facts(root.path()).available_bytes, int64_t{20480000} * 1024);
  root.file("proc/self/cgroup", "0::/\n")
      .file("sys/fs/cgroup/memory.max", "1000000\n")
      .file("sys/fs/cgroup/memory.current", "400000\n");
  EXPECT_EQ(memory_facts(root.path()).total_bytes, 1000000);
  EXPECT_EQ(memory_facts(root.path()).available_bytes, 600000);
}

TEST(Memory, ReportsThisMachine) {
  const MemoryFacts facts = memory_facts();
  EXPECT_GT(facts.available_bytes, 0);
  EXPECT_LE(facts.available_bytes, facts.total_bytes);
  EXPECT_GT(peak_resident_bytes(), 1 << 20);
}

TEST(Memory, FormatsBytes) {
  EXPECT_EQ(format_bytes(512), "512 bytes");
  EXPECT_EQ(format_bytes(3 << 19), "1.5 MiB");
  EXPECT_EQ(format_bytes(int64_t{5} << 29), "2.50 GiB");
}

TEST(HugeBuffer, IsZeroedAlignedAndWritable) {
  for (int64_t bytes : {int64_t{1}, int64_t{5000}, int64_t{2} << 20, (int64_t{5} << 20) + 3}) {
    HugeBuffer buffer = HugeBuffer::allocate(bytes, "test").value();
    ASSERT_EQ(buffer.size(), bytes);
    const int64_t alignment = bytes >= 2 << 20 ? 2 << 20 : 4096;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % alignment, 0U);
    EXPECT_TRUE(std::all_of(buffer.data(), buffer.data() + bytes, [](int x) { return x == 0; }));
    std::fill(buffer.data(), buffer.data() + bytes, 7);
  }
  EXPECT_EQ(HugeBuffer::allocate(0, "nothing").value().size(), 0);
}

TEST(HugeBuffer, MovesItsMemory) {
  HugeBuffer a = HugeBuffer::allocate(4 << 20, "a").value();
  unsigned char* data = a.data();
  HugeBuffer b = std::move(a);
  EXPECT_EQ(b.data(), data);
  b = HugeBuffer::allocate(10, "b").value();
  EXPECT_NE(b.data(), data);
  EXPECT_EQ(b.size(), 10);
}

TEST(HugeBuffer, RefusesMoreThanThereIsWithTheSizesInTheMessage) {
  const auto result = HugeBuffer::allocate(int64_t{1} << 45, "KV cache");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("KV cache needs 32768.00 GiB (35184372088832 bytes)"),
            std::string::npos)
      << result.status().message();
  EXPECT_NE(result.status().message().find("available"), std::string::npos);
}

}  // namespace
}  // namespace quire
