// JSON text -> a tree of values. The one place that includes nlohmann/json's parser; its exceptions
// end here. Depth and number of values are bounded, so that hostile text cannot exhaust stack or
// memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace quire {

class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;  // in the order of the text

  JsonValue() = default;
  template <class T>
  explicit JsonValue(T value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  // Each is null / nullopt when the value has another kind.
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  std::optional<bool> boolean() const;
  std::optional<int64_t> integer() const;  // also of a real number without fraction (1e4)
  std::optional<double> number() const;
  // The member `key` of an object (the last one, as in Python, if there are several), else null.
  const JsonValue* find(std::string_view key) const;
  // Like find(), but null also for a member that is JSON null.
  const JsonValue* get(std::string_view key) const;

 private:
  friend class JsonBuilder;
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

struct JsonLimits {
  int max_depth = 64;
  int64_t max_values = 4 << 20;
};

// kDataLoss with line, column and what was expected when `text` is not JSON or exceeds `limits`.
Result<JsonValue> parse_json(std::string_view text, JsonLimits limits = {});

}  // namespace quire
