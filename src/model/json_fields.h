// Typed reads of the members of a JSON object; the first one that is missing or has another type is
// remembered, so that a reader is a list of lines and one check at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace quire {

class JsonFields {
 public:
  explicit JsonFields(const JsonValue& json) : json_(json) {}

  const Status& status() const { return status_; }
  bool has(std::string_view key) const { return json_.get(key) != nullptr; }

  // Without a default the member is required. JSON null counts as absent.
  int integer(std::string_view key, std::optional<int> or_else = std::nullopt) {
    const JsonValue* value = json_.get(key);
    if (value == nullptr) return absent(key, or_else);
    const std::optional<int64_t> number = value->integer();
    if (!number || *number < INT32_MIN || *number > INT32_MAX) return wrong(key, "an integer", 0);
    return static_cast<int>(*number);
  }
  double number(std::string_view key, std::optional<double> or_else = std::nullopt) {
    const JsonValue* value = json_.get(key);
    if (value == nullptr) return absent(key, or_else);
    const std::optional<double> number = value->number();
    return number ? *number : wrong(key, "a number", 0.0);
  }
  bool boolean(std::string_view key, std::optional<bool> or_else = std::nullopt) {
    const JsonValue* value = json_.get(key);
    if (value == nullptr) return absent(key, or_else);
    const std::optional<bool> flag = value->boolean();
    return flag ? *flag : wrong(key, "true or false", false);
  }
  std::string string(std::string_view key, std::optional<std::string> or_else = std::nullopt) {
    const JsonValue* value = json_.get(key);
    if (value == nullptr) return absent(key, or_else);
    return value->string() ? *value->string() : wrong(key, "a string", std::string());
  }
  // A token id or a list of them; absent: empty.
  std::vector<int32_t> token_ids(std::string_view key) {
    const JsonValue* value = json_.get(key);
    if (value == nullptr) return {};
    std::vector<int32_t> ids;
    const JsonValue::Array single = {*value};
    for (const JsonValue& item : value->array() ? *value->array() : single) {
      const std::optional<int64_t> id = item.integer();
      if (!id || *id < INT32_MIN || *id > INT32_MAX) {
        return wrong(key, "a token id or a list of them", std::vector<int32_t>());
      }
      ids.push_back(static_cast<int32_t>(*id));
    }
    return ids;
  }

 private:
  template <class T>
  T absent(std::string_view key, const std::optional<T>& or_else) {
    if (or_else) return *or_else;
    fail(key, " is missing");
    return T();
  }
  template <class T>
  T wrong(std::string_view key, const char* wanted, T value) {
    fail(key, std::string(" is not ") + wanted);
    return value;
  }
  void fail(std::string_view key, std::string_view problem) {
    std::string message = "\"";
    message.append(key).append("\"").append(problem);
    if (status_.ok()) status_ = data_loss(std::move(message));
  }

  const JsonValue& json_;
  Status status_;
};

}  // namespace quire
