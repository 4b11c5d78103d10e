#include "apps/sampling_flags.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <utility>

namespace quire {

namespace {

// ID:BIAS
Status parse_bias(const std::string& text, std::pair<int32_t, float>& out) {
  const size_t colon = text.find(':');
  const std::optional<int32_t> id = parse_token_id(text.substr(0, colon));
  const char* number = colon == std::string::npos ? "" : text.c_str() + colon + 1;
  char* end = nullptr;
  const float bias = std::strtof(number, &end);
  if (!id || end == number || *end != '\0') {
    return invalid_argument("--logit-bias must be ID:BIAS, as in 42:-1.5, got " + text);
  }
  out = {*id, bias};
  return {};
}

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; }

// Flags whose value has no effect are refused.
Status check_effect(const CommandLine& line, const SamplingFlags& flags) {
  const bool writes_json = line.has("--output") || line.given("--json");
  if (!flags.logprobs || writes_json) return {};
  return invalid_argument(
      "--logprobs has no effect without a JSON result: use it with quire run --json or "
      "quire generate");
}

void add_token_flags(CommandLine line, SamplingFlags& f, const std::string& group) {
  const auto add_ids = [&](const char* name, std::vector<int32_t>& ids, const char* help) {
    line.option(name, ids, help)
        .separated_by(',')
        .one_value_each()
        .type_name("ID,...")
        .group(group);
  };
  add_ids("--stop-token-ids", f.stop_token_ids, "end the answer at these tokens");
  add_ids("--allowed-token-ids", f.allowed_token_ids, "generate these tokens only");
  add_ids("--banned-token-ids", f.banned_token_ids, "never generate these tokens");
  line.options(
          "--logit-bias",
          [&f](const std::vector<std::string>& values) {
            f.logit_bias.assign(values.size(), {});
            for (size_t i = 0; i < values.size(); ++i) {
              QUIRE_RETURN_IF_ERROR(parse_bias(values[i], f.logit_bias[i]));
            }
            return Status();
          },
          "add BIAS in [-100, 100] to a token's logit (may be given several times)")
      .one_value_each()
      .type_name("ID:BIAS")
      .group(group);
}

}  // namespace

Status parse_seed(const std::string& text, std::optional<uint64_t>& out) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || end != text.data() + text.size()) {
    return invalid_argument("--seed must be " + std::string(kSeedRange) + ", got " + text);
  }
  out = seed;
  return {};
}

void add_sampling_flags(CommandLine line, SamplingFlags& f) {
  const std::string group = "Sampling";
  const auto add = [&](const char* name, auto& field, const char* help) {
    return line.option(name, field, help).group(group);
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
  line.option(
          "--seed",
          [&f](const std::string& text) { return parse_seed(text, f.seed); },
          "makes sampling repeatable")
      .type_name("INT")
      .group(group);
  add("--max-tokens,-n", f.max_tokens, "length limit of the answer in tokens");
  add("--min-tokens", f.min_tokens, "no end of the answer before this many tokens");
  add("--stop", f.stop, "end the answer at this text (may be given several times)")
      .one_value_each();
  add_token_flags(line, f, group);
  add("--logprobs",
      f.logprobs,
      "report log-probabilities in the JSON result: for each token itself first, then this many "
      "of the most likely ones, in order (itself again where it is one of them)");
  line.flag("--ignore-eos", f.ignore_eos, "go on after the model's end token").group(group);
  line.flag("--keep-special-tokens", f.keep_special_tokens, "print special tokens as text")
      .group(group);
  line.when_parsed([line, &f]() -> Status {
    QUIRE_RETURN_IF_ERROR(f.validate());
    return check_effect(line, f);
  });
}

void add_answer_count_flags(CommandLine line, SamplingFlags& f) {
  line.option("--n", f.n, "answers to one prompt, which is computed once").group("Sampling");
  line.option("--best-of",
              f.best_of,
              "generate this many answers and give the n most likely, best first")
      .group("Sampling");
  line.option("--beam-width",
              f.beam_width,
              "beam search with this many beams, which share their memory: gives the n "
              "sequences with the best score")
      .group("Sampling");
  line.option("--length-penalty",
              f.length_penalty,
              "a beam search's score is the sum of log-probabilities divided by length to this "
              "power (1)")
      .group("Sampling");
  line.option(
          "--early-stopping",
          [&f](const std::string& text) {
            f.early_stopping = parse_early_stopping(text);
            if (f.early_stopping) return Status();
            return invalid_argument("--early-stopping must be true, false or never, got " + text);
          },
          "when beam search ends: true = with enough ended answers, false = when better ones are "
          "unlikely (the default), never = when they are impossible")
      .type_name("true|false|never")
      .group("Sampling");
}

Status SamplingFlags::validate() const {
  SamplingParams defaults;
  defaults.max_tokens = std::numeric_limits<int>::max();
  QUIRE_RETURN_IF_ERROR(with_flag_names(over(defaults).validate(std::numeric_limits<int>::max())));
  return with_flag_names(output().validate(n.value_or(1)));
}

Status with_flag_names(const Status& status) {
  if (status.ok()) return status;
  std::string message = status.message();
  for (const std::string& name : std::vector<std::string>{"temperature",
                                                          "top_k",
                                                          "top_p",
                                                          "min_p",
                                                          "repetition_penalty",
                                                          "presence_penalty",
                                                          "frequency_penalty",
                                                          "max_tokens",
                                                          "min_tokens",
                                                          "logprobs",
                                                          "n",
                                                          "best_of",
                                                          "beam_width",
                                                          "length_penalty",
                                                          "early_stopping",
                                                          "seed",
                                                          "stop",
                                                          "stop_token_ids",
                                                          "allowed_token_ids",
                                                          "banned_token_ids",
                                                          "logit_bias",
                                                          "max_model_len"}) {
    std::string flag = "--" + name;
    std::replace(flag.begin(), flag.end(), '_', '-');
    for (size_t at = 0; (at = message.find(name, at)) != std::string::npos;) {
      const size_t end = at + name.size();
      const bool whole = (at == 0 || !is_word(message[at - 1])) &&
                         (end == message.size() || !is_word(message[end]));
      if (whole) message.replace(at, name.size(), flag);
      at += whole ? flag.size() : name.size();
    }
  }
  return {status.code(), message};
}

SamplingParams SamplingFlags::over(SamplingParams p) const {
  if (beam_width.value_or(0) > 0) forget_drawing(p);
  p.beam_width = beam_width.value_or(p.beam_width);
  p.length_penalty = length_penalty.value_or(p.length_penalty);
  p.early_stopping = early_stopping.value_or(p.early_stopping);
  p.temperature = temperature.value_or(p.temperature);
  p.top_p = top_p.value_or(p.top_p);
  p.min_p = min_p.value_or(p.min_p);
  p.repetition_penalty = repetition_penalty.value_or(p.repetition_penalty);
  p.presence_penalty = presence_penalty.value_or(p.presence_penalty);
  p.frequency_penalty = frequency_penalty.value_or(p.frequency_penalty);
  p.top_k = top_k.value_or(p.top_k);
  p.max_tokens = max_tokens.value_or(p.max_tokens);
  p.min_tokens = min_tokens.value_or(p.min_tokens);
  p.n = n.value_or(p.n);
  if (logprobs) p.logprobs = logprobs;
  if (seed) p.seed = seed;
  p.stop_token_ids.insert(p.stop_token_ids.end(), stop_token_ids.begin(), stop_token_ids.end());
  p.allowed_token_ids.insert(
      p.allowed_token_ids.end(), allowed_token_ids.begin(), allowed_token_ids.end());
  p.banned_token_ids.insert(
      p.banned_token_ids.end(), banned_token_ids.begin(), banned_token_ids.end());
  p.logit_bias.insert(p.logit_bias.end(), logit_bias.begin(), logit_bias.end());
  p.ignore_eos = p.ignore_eos || ignore_eos;
  return p;
}

TextStream::Options SamplingFlags::output() const {
  return {.stop = stop, .skip_special_tokens = !keep_special_tokens, .best_of = best_of};
}

}  // namespace quire
