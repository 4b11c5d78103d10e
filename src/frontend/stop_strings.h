// Finds stop strings in a stream of text, across token boundaries, and never lets a part of one
// out.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace quire {

class StopStrings {
 public:
  // `include_in_output`: the stop string itself is emitted (vLLM's include_stop_str_in_output).
  explicit StopStrings(std::vector<std::string> stops, bool include_in_output = false);

  // Returns the text that may be emitted now. After a match, matched() says which and nothing more
  // comes out.
  std::string push(std::string_view text);
  std::string finish();  // what was held back and turned out not to be a stop string
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  size_t held_length() const;

  std::vector<std::string> stops_;
  bool include_in_output_;
  std::string pending_;  // not emitted yet: a proper prefix of some stop string
  std::optional<std::string> matched_;
};

}  // namespace quire
