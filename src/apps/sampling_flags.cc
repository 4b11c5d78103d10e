#include "apps/sampling_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

namespace quire {

void add_sampling_flags(CLI::App& app, SamplingFlags& f) {
  const std::string group = "Sampling";
  const auto add = [&](const char* name, auto& field, const char* help) {
    app.add_option(name, field, help)->group(group);
  };
  add("--temperature",
      f.temperature,
      "0 = greedy (the default unless the model's own file says more)");
  add("--top-k", f.top_k, "keep the k most likely tokens; 0 or -1 = off");
  add("--top-p", f.top_p, "keep the smallest set of tokens with this total probability");
  add("--min-p", f.min_p, "keep tokens at least this likely relative to the best one");
  add("--repetition-penalty",
      f.repetition_penalty,
      "divides logits of tokens seen in prompt or answer");
  add("--presence-penalty", f.presence_penalty, "subtracted once for each token in the answer");
  add("--frequency-penalty", f.frequency_penalty, "subtracted for each occurrence in the answer");
  add("--seed", f.seed, "makes sampling repeatable");
  add("--max-tokens,-n", f.max_tokens, "length limit of the answer in tokens");
  add("--min-tokens", f.min_tokens, "no end of the answer before this many tokens");
  add("--stop", f.stop, "end the answer at this text (may be given several times)");
  add("--stop-token-ids", f.stop_token_ids, "end the answer at these tokens");
  add("--logprobs",
      f.logprobs,
      "report log-probabilities and this many alternatives (with --json)");
  app.add_flag("--ignore-eos", f.ignore_eos, "go on after the model's end token")->group(group);
  app.add_flag("--keep-special-tokens", f.keep_special_tokens, "print special tokens as text")
      ->group(group);
}

SamplingParams SamplingFlags::over(SamplingParams p) const {
  p.temperature = temperature.value_or(p.temperature);
  p.top_p = top_p.value_or(p.top_p);
  p.min_p = min_p.value_or(p.min_p);
  p.repetition_penalty = repetition_penalty.value_or(p.repetition_penalty);
  p.presence_penalty = presence_penalty.value_or(p.presence_penalty);
  p.frequency_penalty = frequency_penalty.value_or(p.frequency_penalty);
  p.top_k = top_k.value_or(p.top_k);
  p.max_tokens = max_tokens.value_or(p.max_tokens);
  p.min_tokens = min_tokens.value_or(p.min_tokens);
  if (logprobs) p.logprobs = logprobs;
  if (seed) p.seed = seed;
  p.stop_token_ids.insert(p.stop_token_ids.end(), stop_token_ids.begin(), stop_token_ids.end());
  p.ignore_eos = p.ignore_eos || ignore_eos;
  return p;
}

TextStream::Options SamplingFlags::output() const {
  return {.stop = stop, .skip_special_tokens = !keep_special_tokens};
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
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

// nlohmann's get<int>() wraps around silently.
int checked_int(const Json& v) {
  if (!v.is_number_integer() || v.get<double>() < INT32_MIN || v.get<double>() > INT32_MAX) {
    throw std::invalid_argument("an integer of at most 32 bits");
  }
  return v.get<int>();
}

std::vector<int32_t> checked_ids(const Json& v) {
  if (!v.is_array()) throw std::invalid_argument("an array of token ids");
  std::vector<int32_t> ids;
  for (const Json& id : v) ids.push_back(checked_int(id));
  return ids;
}

// One known field: its name and how its value is taken over. `set` throws what the value must be.
struct Field {
  const char* name;
  std::function<void(const Json&)> set;
};

std::vector<Field> sampling_fields(SamplingParams& p, TextStream::Options& o) {
  const auto number = [](double& target) {
    return [&target](const Json& v) {
      if (!v.is_number()) throw std::invalid_argument("a number");
      target = v.get<double>();
    };
  };
  const auto integer = [](auto& target) {
    return [&target](const Json& v) { target = checked_int(v); };
  };
  const auto boolean = [](bool& target) {
    return [&target](const Json& v) {
      if (!v.is_boolean()) throw std::invalid_argument("true or false");
      target = v.get<bool>();
    };
  };
  const auto ids = [](std::vector<int32_t>& target) {
    return [&target](const Json& v) { target = checked_ids(v); };
  };
  return {
      {"temperature", number(p.temperature)},
      {"top_k", integer(p.top_k)},
      {"top_p", number(p.top_p)},
      {"min_p", number(p.min_p)},
      {"repetition_penalty", number(p.repetition_penalty)},
      {"presence_penalty", number(p.presence_penalty)},
      {"frequency_penalty", number(p.frequency_penalty)},
      {"max_tokens", integer(p.max_tokens)},
      {"min_tokens", integer(p.min_tokens)},
      {"logprobs", integer(p.logprobs)},
      {"prompt_logprobs", integer(p.prompt_logprobs)},
      {"stop_token_ids", ids(p.stop_token_ids)},
      {"allowed_token_ids", ids(p.allowed_token_ids)},
      {"ignore_eos", boolean(p.ignore_eos)},
      {"include_stop_str_in_output", boolean(o.include_stop_string)},
      {"skip_special_tokens", boolean(o.skip_special_tokens)},
      {"seed",
       [&p](const Json& v) {
         if (!v.is_number_integer()) throw std::invalid_argument("an integer");
         p.seed =
             v.is_number_unsigned() ? v.get<uint64_t>() : static_cast<uint64_t>(v.get<int64_t>());
       }},
      {"stop",
       [&o](const Json& v) {
         if (!v.is_string() && !v.is_array()) throw std::invalid_argument("a string or an array");
         o.stop = v.is_string() ? std::vector<std::string>{v.get<std::string>()}
                                : v.get<std::vector<std::string>>();
       }},
      {"logit_bias",
       [&p](const Json& v) {
         if (!v.is_object()) throw std::invalid_argument("an object of token id: bias");
         for (const auto& [id, bias] : v.items()) {
           p.logit_bias.emplace_back(std::stoi(id), bias.get<float>());
         }
       }},
  };
}

}  // namespace

Status apply_sampling_fields(const Json& object,
                             const std::vector<std::string>& known_elsewhere,
                             SamplingParams& params,
                             TextStream::Options& output) {
  const std::vector<Field> fields = sampling_fields(params, output);
  std::vector<std::string> names = known_elsewhere;
  for (const Field& field : fields) names.push_back(field.name);
  for (const auto& [key, value] : object.items()) {
    if (std::find(known_elsewhere.begin(), known_elsewhere.end(), key) != known_elsewhere.end()) {
      continue;
    }
    const auto field = std::find_if(
        fields.begin(), fields.end(), [&key = key](const Field& f) { return key == f.name; });
    if (field == fields.end()) {
      const std::string near = nearest(key, names);
      return invalid_argument("unknown field \"" + key + "\"" +
                              (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
    }
    if (value.is_null()) continue;
    try {
      field->set(value);
    } catch (const std::exception& error) {
      return invalid_argument("field \"" + key + "\" must be " + error.what() + ", got " +
                              dump_json(value));
    }
  }
  return {};
}

}  // namespace quire
