#include "serve/request_size.h"

#include <algorithm>
#include <string>

namespace quire {

namespace {

Status too_many(const std::string& what, int64_t limit) {
  return invalid_argument(what + ", but at most " + std::to_string(limit) + " are allowed");
}

// The answers that the engine computes for one prompt: names the field that says so.
struct Answers {
  const char* name;
  int64_t count;
};

Answers answers_of(const GenerateRequest& request) {
  const SamplingParams& sampling = request.sampling;
  Answers most = {"n", sampling.n};
  if (sampling.beam_width > most.count) most = {"beam_width", sampling.beam_width};
  if (request.output.best_of.value_or(0) > most.count) most = {"best_of", *request.output.best_of};
  return most;
}

Status check_answers(const Answers& answers, size_t num_prompts, const ApiContext& context) {
  const std::string what = std::string(answers.name) + " is " + std::to_string(answers.count);
  if (answers.count > context.max_num_seqs) {
    return invalid_argument(what + ", but max_num_seqs is " + std::to_string(context.max_num_seqs) +
                            ", and answers to one prompt run together: lower it or raise "
                            "--max-num-seqs");
  }
  const int64_t all = answers.count * static_cast<int64_t>(num_prompts);
  if (num_prompts <= 1 || all <= kMaxAnswersOfRequest) return {};
  return too_many(what + " and the prompts are " + std::to_string(num_prompts) + ": together " +
                      std::to_string(all) + " answers",
                  kMaxAnswersOfRequest);
}

Status check_stop(const std::vector<std::string>& stop, int64_t num_answers) {
  if (stop.size() > kMaxStopStrings) {
    return too_many("stop has " + std::to_string(stop.size()) + " texts", kMaxStopStrings);
  }
  int64_t bytes = 0;
  for (const std::string& text : stop) {
    bytes += static_cast<int64_t>(text.size()) * num_answers;
    if (text.size() <= kMaxStopStringBytes) continue;
    return too_many("stop has a text of " + std::to_string(text.size()) + " bytes",
                    kMaxStopStringBytes);
  }
  if (bytes <= kMaxStopBytesOfAnswers) return {};
  return too_many("stop has, for " + std::to_string(num_answers) + " answers, " +
                      std::to_string(bytes) + " bytes",
                  kMaxStopBytesOfAnswers);
}

// Each token once is all that a list can say.
Status check_lists(const SamplingParams& sampling, int64_t num_answers, int64_t vocab_size) {
  const struct {
    const char* name;
    size_t size;
  } lists[] = {{"allowed_token_ids", sampling.allowed_token_ids.size()},
               {"banned_token_ids", sampling.banned_token_ids.size()},
               {"stop_token_ids", sampling.stop_token_ids.size()},
               {"logit_bias", sampling.logit_bias.size()}};
  int64_t all = 0;
  const char* longest = lists[0].name;
  size_t longest_size = 0;
  for (const auto& [name, size] : lists) {
    if (static_cast<int64_t>(size) > vocab_size) {
      return too_many(std::string(name) + " has " + std::to_string(size) + " entries", vocab_size);
    }
    all += static_cast<int64_t>(size) * num_answers;
    if (size > longest_size) longest = name;
    longest_size = std::max(longest_size, size);
  }
  if (all <= kMaxTokenEntriesOfAnswers) return {};
  return too_many(std::string(longest) + " and the other lists of tokens have, for " +
                      std::to_string(num_answers) + " answers, " + std::to_string(all) + " entries",
                  kMaxTokenEntriesOfAnswers);
}

}  // namespace

Status check_size(const GenerateRequest& request, size_t num_prompts, const ApiContext& context) {
  const Answers answers = answers_of(request);
  QUIRE_RETURN_IF_ERROR(check_answers(answers, num_prompts, context));
  const int64_t num_answers =
      std::max<int64_t>(1, answers.count) * static_cast<int64_t>(std::max<size_t>(1, num_prompts));
  QUIRE_RETURN_IF_ERROR(check_stop(request.output.stop, num_answers));
  QUIRE_RETURN_IF_ERROR(check_lists(request.sampling, num_answers, context.vocab_size));
  if (request.cache_salt.size() <= kMaxCacheSaltBytes) return {};
  return too_many("cache_salt has " + std::to_string(request.cache_salt.size()) + " bytes",
                  kMaxCacheSaltBytes);
}

}  // namespace quire
