#include "serve/field_reader.h"

#include <nlohmann/json.hpp>

#include "frontend/utf8.h"

namespace quire {

const Json* FieldReader::find(const std::string& name) {
  known_.push_back(name);
  const auto field = object_->find(name);
  return field == object_->end() || field->is_null() ? nullptr : &*field;
}

void FieldReader::fail(const std::string& name, const std::string& message) {
  if (failed()) return;
  failed_field_ = name;
  message_ = message;
}

void FieldReader::expect(const std::string& name, const char* what, const Json& got) {
  fail(name, "field \"" + name + "\" must be " + what + ", got " + shortened(dump_json(got)));
}

void FieldReader::read(const std::string& name, bool& target) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return expect(name, "true or false", *value);
  target = value->get<bool>();
}

void FieldReader::read(const std::string& name, std::string& target) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return expect(name, "a string", *value);
  target = value->get<std::string>();
}

void FieldReader::read(const std::string& name, std::optional<int>& target) {
  const Json* value = find(name);
  if (value == nullptr) return;
  // nlohmann's get<int>() wraps around silently.
  const bool fits = value->is_number_integer() && value->get<double>() >= INT32_MIN &&
                    value->get<double>() <= INT32_MAX;
  if (!fits) return expect(name, "an integer of at most 32 bits", *value);
  target = value->get<int>();
}

void FieldReader::accept_if(const std::string& name,
                            const std::function<bool(const Json&)>& has_no_effect,
                            const std::string& why_not) {
  const Json* value = find(name);
  if (value != nullptr && !has_no_effect(*value)) fail(name, "field \"" + name + "\" " + why_not);
}

}  // namespace quire
