// Takes known fields out of a JSON object; what is left at the end is unknown.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "frontend/json.h"

namespace quire {

// The first field that is wrong is remembered; reading goes on, without effect.
class FieldReader {
 public:
  explicit FieldReader(const Json& object) : object_(&object) {}

  // Null when absent or JSON null.
  const Json* find(const std::string& name);
  // Absent or null: the target stays as it is.
  void read(const std::string& name, bool& target);
  void read(const std::string& name, std::string& target);
  void read(const std::string& name, std::optional<int>& target);
  // A field that has no effect here, whatever it says.
  void accept(const std::string& name) { find(name); }
  // A field that may only say what quire does anyway.
  void accept_if(const std::string& name,
                 const std::function<bool(const Json&)>& has_no_effect,
                 const std::string& why_not);
  void fail(const std::string& name, const std::string& message);

  bool failed() const { return !message_.empty(); }
  const std::string& message() const { return message_; }
  const std::string& failed_field() const { return failed_field_; }
  const std::vector<std::string>& known() const { return known_; }

 private:
  void expect(const std::string& name, const char* what, const Json& got);

  const Json* object_;
  std::vector<std::string> known_;
  std::string message_, failed_field_;
};

}  // namespace quire
