// A file of results: opened before anything is measured, because a wrong path should not cost
// minutes, and written at the end.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/status.h"
#include "frontend/json.h"

namespace quire {

class JsonFile {
 public:
  // What the file holds is kept until write(). An empty name: no file.
  static Result<JsonFile> open(std::string name);
  Status write(const Json& value) const;

 private:
  std::string name_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{nullptr, std::fclose};
};

}  // namespace quire
