#include "base/json.h"

#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>

namespace quire {

std::optional<bool> JsonValue::boolean() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  return std::nullopt;
}

std::optional<int64_t> JsonValue::integer() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  if (const double* value = std::get_if<double>(&value_)) {
    if (std::abs(*value) < 9e15 && *value == std::floor(*value)) {
      return static_cast<int64_t>(*value);
    }
  }
  return std::nullopt;
}

std::optional<double> JsonValue::number() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  return std::nullopt;
}

const JsonValue* JsonValue::find(std::string_view key) const {
  const Object* members = object();
  if (members == nullptr) return nullptr;
  for (auto it = members->rbegin(); it != members->rend(); ++it) {
    if (it->first == key) return &it->second;
  }
  return nullptr;
}

const JsonValue* JsonValue::get(std::string_view key) const {
  const JsonValue* value = find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// Receives nlohmann's parse events; `open_` is the path from the root to the container being
// filled.
class JsonBuilder {
 public:
  explicit JsonBuilder(JsonLimits limits) : limits_(limits) {}

  bool null() { return add(JsonValue()) != nullptr; }
  bool boolean(bool value) { return add(JsonValue(value)) != nullptr; }
  bool number_integer(int64_t value) { return add(JsonValue(value)) != nullptr; }
  bool number_unsigned(uint64_t value) {
    if (value > INT64_MAX) return add(JsonValue(static_cast<double>(value))) != nullptr;
    return add(JsonValue(static_cast<int64_t>(value))) != nullptr;
  }
  bool number_float(double value, const std::string&) { return add(JsonValue(value)) != nullptr; }
  bool string(std::string& value) { return add(JsonValue(std::move(value))) != nullptr; }
  bool binary(nlohmann::json::binary_t&) { return fail("binary values are not JSON text"); }
  bool key(std::string& value) {
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) { return open(JsonValue(JsonValue::Object())); }
  bool start_array(size_t) { return open(JsonValue(JsonValue::Array())); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) {
    std::string_view message =
        error.what();  // "[json.exception.parse_error.101] parse error at .."
    size_t end = message.find("] ");
    return fail(std::string(end == std::string_view::npos ? message : message.substr(end + 2)));
  }

  JsonValue root;
  std::string error;

 private:
  bool fail(std::string message) {
    if (error.empty()) error = std::move(message);
    return false;
  }

  JsonValue* add(JsonValue value) {
    if (++num_values_ > limits_.max_values) {
      fail("more than " + std::to_string(limits_.max_values) + " JSON values");
      return nullptr;
    }
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    // A container's address is stable while it is open: only its own children are appended.
    if (auto* array = std::get_if<JsonValue::Array>(&open_.back()->value_)) {
      return &array->emplace_back(std::move(value));
    }
    auto& object = std::get<JsonValue::Object>(open_.back()->value_);
    return &object.emplace_back(std::move(key_), std::move(value)).second;
  }

  bool open(JsonValue container) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return fail("JSON nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    JsonValue* added = add(std::move(container));
    if (added != nullptr) open_.push_back(added);
    return added != nullptr;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  JsonLimits limits_;
  int64_t num_values_ = 0;
  std::string key_;
  std::vector<JsonValue*> open_;
};

Result<JsonValue> parse_json(std::string_view text, JsonLimits limits) {
  JsonBuilder builder(limits);
  bool complete = false;
  try {
    complete = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const std::exception& error) {
    return data_loss(std::string("not readable as JSON: ") + error.what());
  }
  if (!complete) return data_loss("not readable as JSON: " + builder.error);
  return std::move(builder.root);
}

}  // namespace quire
