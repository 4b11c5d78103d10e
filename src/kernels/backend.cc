#include "kernels/backend.h"

#include <array>
#include <cstdlib>

#include "kernels/cpu/detect.h"
#include "kernels/cpu/tables.h"

namespace quire {
namespace {

IsaLevel make_level(const char* name, const OpTable* ops, std::string missing) {
  if (ops == nullptr) missing = "it is not part of this build";
  const bool runs = missing.empty();
  return {name, ops, runs, std::move(missing)};
}

std::string level_names(bool only_running) {
  std::string names;
  for (const IsaLevel& level : cpu_levels()) {
    if (only_running && !level.runs_here) continue;
    names += (names.empty() ? "" : ", ") + std::string(level.name);
  }
  return names;
}

}  // namespace

std::span<const IsaLevel> cpu_levels() {
  static const std::array<IsaLevel, 4> levels = {
      make_level("generic", cpu::generic_table(), ""),
      make_level("avx2", cpu::avx2_table(), cpu::missing_feature(cpu::kAvx2Features)),
      make_level("avx512", cpu::avx512_table(), cpu::missing_feature(cpu::kAvx512Features)),
      make_level(
          "avx512_vnni", cpu::avx512_vnni_table(), cpu::missing_feature(cpu::kAvx512VnniFeatures)),
  };
  return levels;
}

Result<const OpTable*> select_ops(std::string_view name) {
  std::string_view source = "requested";
  if (name.empty()) {
    const char* forced = std::getenv("QUIRE_ISA");
    if (forced != nullptr && *forced != '\0') {
      name = forced;
      source = "from QUIRE_ISA";
    }
  }
  if (name == "ref") return &ref_ops();
  const OpTable* best = nullptr;
  for (const IsaLevel& level : cpu_levels()) {
    if (name == level.name && level.runs_here) return level.ops;
    if (name == level.name) {
      return unsupported("ISA level \"" + std::string(name) + "\" (" + std::string(source) +
                         ") does not run here: " + level.why_not + "; levels that run here: " +
                         level_names(true) + ", ref. Choose one of them or leave it unset");
    }
    if (level.runs_here) best = level.ops;
  }
  if (name.empty()) return best;
  return invalid_argument("unknown ISA level \"" + std::string(name) + "\" (" +
                          std::string(source) + "); there are " + level_names(false) +
                          ", ref. Choose one of them or leave it unset");
}

int64_t kv_block_bytes(const KvLayout& layout) {
  return int64_t{layout.num_kv_heads} * 2 * layout.head_dim * layout.block_size *
         dtype_info(layout.dtype).bytes;
}

}  // namespace quire
