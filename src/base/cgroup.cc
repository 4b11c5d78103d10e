#include "base/cgroup.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <vector>

namespace quire {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  return text.str();
}

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

// The value of `key` in lines of "key value" (memory.stat).
int64_t stat_value(const std::string& text, const std::string& key) {
  std::istringstream in(text);
  std::string name;
  int64_t value = 0;
  while (in >> name >> value) {
    if (name == key) return value;
  }
  return 0;
}

// `dir` and its ancestors up to `top`.
std::vector<std::string> chain(const std::string& top, std::string path) {
  std::vector<std::string> dirs;
  while (!path.empty() && path != "/") {
    dirs.push_back(top + path);
    path.resize(path.rfind('/'));
  }
  dirs.push_back(top);
  return dirs;
}

void take_cpus(CgroupLimits& limits, int64_t quota_us, int64_t period_us) {
  if (quota_us <= 0 || period_us <= 0) return;
  const double cpus = static_cast<double>(quota_us) / static_cast<double>(period_us);
  limits.cpus = std::min(limits.cpus.value_or(cpus), cpus);
}

// Keeps the limit that leaves the least memory. A limit near 2^63 means none (v1).
void take_memory(CgroupLimits& limits, int64_t limit, int64_t used) {
  if (limit >= int64_t{1} << 60) return;
  const bool tighter =
      !limits.memory_bytes || limit - used < *limits.memory_bytes - limits.memory_used_bytes;
  if (!tighter) return;
  limits.memory_bytes = limit;
  limits.memory_used_bytes = used;
}

void read_v2(const std::string& dir, CgroupLimits& limits) {
  std::istringstream cpu(read_text(dir + "/cpu.max"));
  std::string quota;
  int64_t period = 0;
  if (cpu >> quota >> period) take_cpus(limits, parse_int(quota).value_or(0), period);
  const auto limit = parse_int(read_text(dir + "/memory.max"));
  if (!limit) return;
  const int64_t used = parse_int(read_text(dir + "/memory.current")).value_or(0);
  const int64_t droppable = stat_value(read_text(dir + "/memory.stat"), "inactive_file");
  take_memory(limits, *limit, std::max<int64_t>(0, used - droppable));
}

void read_v1_cpu(const std::string& dir, CgroupLimits& limits) {
  take_cpus(limits,
            parse_int(read_text(dir + "/cpu.cfs_quota_us")).value_or(0),
            parse_int(read_text(dir + "/cpu.cfs_period_us")).value_or(0));
}

void read_v1_memory(const std::string& dir, CgroupLimits& limits) {
  const auto limit = parse_int(read_text(dir + "/memory.limit_in_bytes"));
  if (!limit) return;
  const int64_t used = parse_int(read_text(dir + "/memory.usage_in_bytes")).value_or(0);
  const int64_t droppable = stat_value(read_text(dir + "/memory.stat"), "total_inactive_file");
  take_memory(limits, *limit, std::max<int64_t>(0, used - droppable));
}

bool has_controller(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == name) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

}  // namespace

CgroupLimits cgroup_limits(const std::string& root) {
  CgroupLimits limits;
  const std::string top = root + "/sys/fs/cgroup";
  std::istringstream lines(read_text(root + "/proc/self/cgroup"));
  std::string line;
  while (std::getline(lines, line)) {  // hierarchy-id:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      for (const auto& dir : chain(top, path)) read_v2(dir, limits);
    }
    if (has_controller(controllers, "cpu")) {
      for (const auto& dir : chain(top + "/cpu", path)) read_v1_cpu(dir, limits);
    }
    if (has_controller(controllers, "memory")) {
      for (const auto& dir : chain(top + "/memory", path)) read_v1_memory(dir, limits);
    }
  }
  return limits;
}

}  // namespace quire
