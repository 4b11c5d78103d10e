// quire devices: what quire would run on.
#include <sched.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/command.h"
#include "apps/terminal.h"
#include "base/cgroup.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "frontend/json.h"
#include "kernels/backend.h"

namespace quire {
namespace {

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

Json describe() {
  const Result<const OpTable*> chosen = select_ops("");
  Json levels = Json::array();
  for (const IsaLevel& level : cpu_levels()) {
    Json entry = {{"name", level.name}, {"runs_here", level.runs_here}};
    if (!level.runs_here) entry["why_not"] = level.why_not;
    if (chosen.ok() && level.ops == *chosen) entry["chosen"] = true;
    levels.push_back(std::move(entry));
  }
  const MemoryFacts memory = memory_facts();
  const std::optional<double> quota = cgroup_limits().cpus;
  return {{"cpu", cpu_name()},
          {"cores_in_affinity_mask", affinity_cores()},
          {"cgroup_cpu_quota", quota ? Json(*quota) : Json()},
          {"threads", default_num_threads()},
          {"isa_levels", std::move(levels)},
          {"memory_bytes", memory.total_bytes},
          {"available_memory_bytes", memory.available_bytes}};
}

Status run(bool json) {
  QUIRE_RETURN_IF_ERROR(select_ops("").status());
  const Json facts = describe();
  if (json) {
    std::puts(dump_json(facts, 2).c_str());
    return {};
  }
  const Json& quota = facts["cgroup_cpu_quota"];
  std::printf("CPU: %s\n", facts["cpu"].get<std::string>().c_str());
  std::printf(
      "CPUs: %d by affinity mask, cgroup quota %s; quire uses %d threads, one of each core\n",
      facts["cores_in_affinity_mask"].get<int>(),
      quota.is_null() ? "none" : format_double(quota.get<double>(), 2).c_str(),
      facts["threads"].get<int>());
  std::printf("memory: %s, %s available\n",
              human_bytes(facts["memory_bytes"]).c_str(),
              human_bytes(facts["available_memory_bytes"]).c_str());
  std::printf("instruction sets (QUIRE_ISA forces one):\n");
  for (const Json& level : facts["isa_levels"]) {
    std::string state = level.contains("chosen") ? "chosen"
                        : level["runs_here"].get<bool>()
                            ? "available"
                            : "no: " + level["why_not"].get<std::string>();
    std::printf("  %-12s %s\n", level["name"].get<std::string>().c_str(), state.c_str());
  }
  return {};
}

}  // namespace

Command add_devices_command(CommandLine line) {
  auto json = std::make_shared<bool>(false);
  line.flag("--json", *json, "print one JSON object");
  return [json] { return run(*json); };
}

}  // namespace quire
