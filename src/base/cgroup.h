// Limits that a container puts on this process: cgroup v2 and v1.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace quire {

struct CgroupLimits {
  std::optional<double> cpus;           // the CPU quota in CPUs, e.g. 1.5
  std::optional<int64_t> memory_bytes;  // the memory limit
  int64_t memory_used_bytes = 0;        // of that limit, page cache that can be dropped excluded
};

// The tightest limits over this process's cgroup and its ancestors. `root` is put before /proc and
// /sys (tests give a folder).
CgroupLimits cgroup_limits(const std::string& root = "");

}  // namespace quire
