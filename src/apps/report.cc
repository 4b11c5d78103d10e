#include "apps/report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/terminal.h"
#include "base/memory.h"

namespace quire {

namespace {

Json logprobs_json(const std::vector<LogprobList>& lists, const Tokenizer& tokenizer) {
  Json out = Json::array();
  for (const LogprobList& list : lists) {
    Json entries = Json::array();
    for (const TokenLogprob& entry : list) {
      entries.push_back({{"token_id", entry.token},
                         {"token", tokenizer.id_to_token(entry.token).value_or("")},
                         {"logprob", entry.logprob},
                         {"rank", entry.rank}});
    }
    out.push_back(std::move(entries));
  }
  return out;
}

void add_answer(const TextDelta& answer, const Tokenizer& tokenizer, Json& out) {
  out["text"] = answer.text;
  out["token_ids"] = answer.tokens;
  out["finish_reason"] = finish_reason_name(answer.finish_reason);
  out["stop_reason"] = answer.stop_string  ? Json(*answer.stop_string)
                       : answer.stop_token ? Json(*answer.stop_token)
                                           : Json();
  if (answer.cumulative_logprob) out["cumulative_logprob"] = *answer.cumulative_logprob;
  if (answer.score) out["score"] = *answer.score;
  if (!answer.logprobs.empty()) out["logprobs"] = logprobs_json(answer.logprobs, tokenizer);
}

}  // namespace

Json answers_json(const std::vector<TextDelta>& answers,
                  const TextStream& stream,
                  const Tokenizer& tokenizer) {
  const RequestStats& stats = stream.stats();
  Json out;
  if (answers.size() == 1) add_answer(answers[0], tokenizer, out);
  for (size_t i = 0; i < answers.size() && answers.size() > 1; ++i) {
    Json choice = {{"index", i}};
    add_answer(answers[i], tokenizer, choice);
    out["choices"].push_back(std::move(choice));
  }
  for (const TextDelta& answer : answers) {
    if (answer.prompt_logprobs.empty()) continue;
    out["prompt_logprobs"] = logprobs_json(answer.prompt_logprobs, tokenizer);
  }
  out["prompt_token_ids"] = stream.prompt_tokens();
  out["usage"] = {{"prompt_tokens", stats.num_prompt_tokens},
                  {"completion_tokens", stats.num_generated_tokens},
                  {"total_tokens", stats.num_prompt_tokens + stats.num_generated_tokens},
                  {"cached_tokens", stats.num_cached_tokens}};
  out["timings"] = {{"queue_seconds", stats.scheduled_seconds},
                    {"time_to_first_token_seconds", stats.first_token_seconds},
                    {"total_seconds", stats.finish_seconds},
                    {"prefill_tokens_per_second", stats.prefill_tokens_per_second()},
                    {"decode_tokens_per_second", stats.decode_tokens_per_second()}};
  return out;
}

namespace {

// What an experiment's memory policy took beside the paged one: nothing where it is the paged one.
std::string policy_cost(const EngineConfig& config, const EngineStats& stats) {
  if (config.kv_policy == "paged") return "";
  return " | --kv-policy " + config.kv_policy + ": computed " +
         std::to_string(stats.num_computed_tokens) + " tokens, copied " +
         std::to_string(stats.num_copied_blocks) + " blocks";
}

}  // namespace

std::string figures_line(const RequestStats& stats, const Llm& llm) {
  const EngineStats engine = llm.stats();
  const auto speed = [](const char* name, double tokens_per_second) {
    if (tokens_per_second == 0) return std::string();
    return std::string(", ") + name + " " + format_double(tokens_per_second, 1) + " tok/s";
  };
  return "prompt " + std::to_string(stats.num_prompt_tokens) + " tokens (" +
         std::to_string(stats.num_cached_tokens) + " cached)" +
         speed("prefill", stats.prefill_tokens_per_second()) + " | generated " +
         std::to_string(stats.num_generated_tokens) + " tokens" +
         speed("decode", stats.decode_tokens_per_second()) + " | KV blocks " +
         std::to_string(engine.peak_used_blocks) + " of " + std::to_string(engine.num_blocks) +
         ", KV pool " + human_bytes(llm.load_report().kv_plan.pool_bytes) +
         policy_cost(llm.engine_config(), engine) + " | load " +
         format_double(llm.load_report().seconds, 2) + " s | peak memory " +
         human_bytes(peak_resident_bytes());
}

void print_kv_pool(const KvPoolPlan& plan) {
  std::fprintf(stderr, "%s\n", plan.to_string().c_str());
}

}  // namespace quire
