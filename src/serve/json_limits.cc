#include "serve/json_limits.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "frontend/json.h"

namespace quire {

namespace {

// Counts. Each function returns whether the parser should go on.
class LimitReader : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return value(); }
  bool boolean(bool) override { return value(); }
  bool number_integer(number_integer_t) override { return value(); }
  bool number_unsigned(number_unsigned_t) override { return value(); }
  bool number_float(number_float_t, const string_t&) override { return value(); }
  bool string(string_t&) override { return value(); }
  bool binary(binary_t&) override { return value(); }
  bool start_object(size_t) override { return value() && open(); }
  bool start_array(size_t) override { return value() && open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

  bool key(string_t&) override {
    if (++keys_.back() > kMaxKeysOfObject) {
      return exceeds("an object of the JSON text has", "keys", kMaxKeysOfObject);
    }
    if (++num_keys_ <= kMaxKeysInAll) return true;
    return exceeds("the JSON text has", "keys in all", kMaxKeysInAll);
  }

  const Status& status() const { return status_; }

 private:
  bool value() {
    if (++num_values_ <= kMaxJsonValues) return true;
    return exceeds("the JSON text has", "values", kMaxJsonValues);
  }
  bool open() {
    keys_.push_back(0);
    if (keys_.size() <= size_t{kMaxJsonDepth}) return true;
    return exceeds("the JSON text is nested", "levels deep", kMaxJsonDepth);
  }
  bool close() {
    keys_.pop_back();
    return true;
  }
  bool exceeds(const std::string& what, const std::string& unit, size_t limit) {
    status_ = invalid_argument(what + " more than " + std::to_string(limit) + " " + unit +
                               ", and at most " + std::to_string(limit) + " are allowed");
    return false;
  }

  Status status_;
  std::vector<size_t> keys_;  // of each open object (0 for an array), the outermost first
  size_t num_keys_ = 0, num_values_ = 0;
};

}  // namespace

Status check_json_limits(std::string_view text) {
  LimitReader reader;
  Json::sax_parse(text, &reader);
  return reader.status();
}

}  // namespace quire
