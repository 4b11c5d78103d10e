#include "apps/json_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace quire {

Result<JsonFile> JsonFile::open(std::string name) {
  JsonFile file;
  file.name_ = std::move(name);
  if (file.name_.empty()) return file;
  file.file_.reset(std::fopen(file.name_.c_str(), "ab"));
  if (file.file_) return file;
  return unavailable("cannot write " + file.name_ + ": " + std::strerror(errno) +
                     "; give a writable file with --json");
}

Status JsonFile::write(const Json& value) const {
  if (!file_) return {};
  const std::string text = dump_json(value, 2) + "\n";
  [[maybe_unused]] const int emptied = ftruncate(fileno(file_.get()), 0);  // fails on devices
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
                       std::fflush(file_.get()) == 0;
  return written ? Status() : unavailable("cannot write " + name_ + ": " + std::strerror(errno));
}

}  // namespace quire
