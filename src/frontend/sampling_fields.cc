#include "frontend/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "frontend/utf8.h"

namespace quire {

std::optional<int32_t> parse_token_id(const std::string& text) {
  int32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id;
}

std::optional<EarlyStopping> parse_early_stopping(const std::string& text) {
  if (text == "true") return EarlyStopping::kTrue;
  if (text == "false") return EarlyStopping::kFalse;
  if (text == "never") return EarlyStopping::kNever;
  return std::nullopt;
}

void forget_drawing(SamplingParams& p) {
  const SamplingParams neutral;
  p.temperature = neutral.temperature;
  p.top_k = neutral.top_k;
  p.top_p = neutral.top_p;
  p.min_p = neutral.min_p;
  p.repetition_penalty = neutral.repetition_penalty;
  p.presence_penalty = neutral.presence_penalty;
  p.frequency_penalty = neutral.frequency_penalty;
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestWord = 64;
  std::string best;
  if (word.size() > kLongestWord) return best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = std::exchange(row[0], i);
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t substitute = diagonal + (word[i - 1] != candidate[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

namespace {

constexpr const char* kTokenIds = "an array of token ids";

bool set_integer(const Json& v, int& target) {
  // nlohmann's get<int>() wraps around silently.
  if (!v.is_number_integer()) return false;
  if (v.get<double>() < INT32_MIN || v.get<double>() > INT32_MAX) return false;
  target = v.get<int>();
  return true;
}

bool set_ids(const Json& v, std::vector<int32_t>& target) {
  if (!v.is_array()) return false;
  std::vector<int32_t> ids;
  for (const Json& item : v) {
    int id = 0;
    if (!set_integer(item, id)) return false;
    ids.push_back(id);
  }
  target = std::move(ids);
  return true;
}

bool set_stop(const Json& v, std::vector<std::string>& target) {
  const Json list = v.is_array() ? v : Json::array({v});
  std::vector<std::string> stop;
  for (const Json& text : list) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) return false;
    stop.push_back(text.get<std::string>());
  }
  target = std::move(stop);
  return true;
}

bool set_bias(const Json& v, std::vector<std::pair<int32_t, float>>& target) {
  if (!v.is_object()) return false;
  std::vector<std::pair<int32_t, float>> bias;
  for (const auto& [key, value] : v.items()) {
    const std::optional<int32_t> id = parse_token_id(key);
    if (!id || !value.is_number()) return false;
    bias.emplace_back(*id, value.get<float>());
  }
  target = std::move(bias);
  return true;
}

bool set_early_stopping(const Json& v, EarlyStopping& target) {
  const auto rule = v.is_boolean()  ? parse_early_stopping(v.get<bool>() ? "true" : "false")
                    : v.is_string() ? parse_early_stopping(v.get<std::string>())
                                    : std::nullopt;
  if (rule) target = *rule;
  return rule.has_value();
}

// One known field: its name, what its value must be, and how it is taken over (false: it is not
// that).
struct Field {
  const char* name;
  const char* expected;
  std::function<bool(const Json&)> set;
};

Field number(const char* name, double& target) {
  return {name, "a number", [&target](const Json& v) {
            if (v.is_number()) target = v.get<double>();
            return v.is_number();
          }};
}

template <class T>  // int or std::optional<int>
Field integer(const char* name, T& target) {
  return {name, "an integer of at most 32 bits", [&target](const Json& v) {
            int value = 0;
            if (!set_integer(v, value)) return false;
            target = value;
            return true;
          }};
}

Field boolean(const char* name, bool& target) {
  return {name, "true or false", [&target](const Json& v) {
            if (v.is_boolean()) target = v.get<bool>();
            return v.is_boolean();
          }};
}

Field token_ids(const char* name, std::vector<int32_t>& target) {
  return {name, kTokenIds, [&target](const Json& v) { return set_ids(v, target); }};
}

Field seed(std::optional<uint64_t>& target) {
  return {"seed", kSeedRange, [&target](const Json& v) {
            if (!v.is_number_unsigned()) return false;
            target = v.get<uint64_t>();
            return true;
          }};
}

std::vector<Field> sampling_fields(SamplingParams& p, TextStream::Options& o) {
  return {
      number("temperature", p.temperature),
      integer("top_k", p.top_k),
      number("top_p", p.top_p),
      number("min_p", p.min_p),
      number("repetition_penalty", p.repetition_penalty),
      number("presence_penalty", p.presence_penalty),
      number("frequency_penalty", p.frequency_penalty),
      integer("max_tokens", p.max_tokens),
      integer("min_tokens", p.min_tokens),
      integer("expected_output_tokens", p.expected_output_tokens),
      integer("logprobs", p.logprobs),
      integer("n", p.n),
      integer("best_of", o.best_of),
      integer("beam_width", p.beam_width),
      number("length_penalty", p.length_penalty),
      {"early_stopping",
       "true, false or \"never\"",
       [&p](const Json& v) { return set_early_stopping(v, p.early_stopping); }},
      integer("prompt_logprobs", p.prompt_logprobs),
      token_ids("stop_token_ids", p.stop_token_ids),
      token_ids("allowed_token_ids", p.allowed_token_ids),
      token_ids("banned_token_ids", p.banned_token_ids),
      boolean("ignore_eos", p.ignore_eos),
      boolean("include_stop_str_in_output", o.include_stop_string),
      boolean("skip_special_tokens", o.skip_special_tokens),
      seed(p.seed),
      {"stop",
       "a text or an array of texts, none of them empty",
       [&o](const Json& v) { return set_stop(v, o.stop); }},
      {"logit_bias",
       "an object of token ids and numbers, as in {\"42\": -1.5}",
       [&p](const Json& v) { return set_bias(v, p.logit_bias); }},
  };
}

}  // namespace

Status apply_sampling_fields(const Json& object,
                             const std::vector<std::string>& known_elsewhere,
                             SamplingParams& params,
                             TextStream::Options& output) {
  const std::vector<Field> fields = sampling_fields(params, output);
  std::vector<std::string> names = known_elsewhere;
  if (object.contains("beam_width") && object["beam_width"] != 0) forget_drawing(params);
  for (const Field& field : fields) names.push_back(field.name);
  for (const auto& [key, value] : object.items()) {
    if (std::find(known_elsewhere.begin(), known_elsewhere.end(), key) != known_elsewhere.end()) {
      continue;
    }
    const auto field = std::find_if(
        fields.begin(), fields.end(), [&key = key](const Field& f) { return key == f.name; });
    if (field == fields.end()) {
      const std::string near = nearest(key, names);
      return invalid_argument("unknown field \"" + shortened(key) + "\"" +
                              (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
    }
    if (value.is_null() || field->set(value)) continue;
    return invalid_argument("field \"" + key + "\" must be " + field->expected + ", got " +
                            shortened(dump_json(value)));
  }
  return {};
}

}  // namespace quire
