#include "serve/token_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace quire {

TokenTexts::TokenTexts(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
  Result<std::vector<TokenId>> anchor = tokenizer.encode("a", {.add_special_tokens = false});
  if (!anchor.ok()) return;
  Result<std::string> text = tokenizer.decode(*anchor, false);
  if (!text.ok()) return;
  anchor_ = std::move(*anchor);
  anchor_text_ = std::move(*text);
}

std::string TokenTexts::text_of(TokenId id) const {
  std::vector<TokenId> ids = anchor_;
  ids.push_back(id);
  const Result<std::string> text = tokenizer_->decode(ids, false);
  if (text.ok() && text->starts_with(anchor_text_)) return text->substr(anchor_text_.size());
  const Result<std::string> alone = tokenizer_->decode(std::span(&id, 1), false);
  return alone.ok() ? *alone : "";
}

namespace {

// JSON has no infinity: a token that cannot be drawn has OpenAI's -9999.
double finite(float logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

Json chat_entry(const TokenLogprob& entry, const TokenTexts& texts) {
  const std::string text = texts.text_of(entry.token);
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", text}, {"logprob", finite(entry.logprob)}, {"bytes", std::move(bytes)}};
}

int64_t num_characters(const std::string& text) {
  return std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace

Json chat_logprobs(const std::vector<LogprobList>& lists, const TokenTexts& texts) {
  Json content = Json::array();
  for (const LogprobList& list : lists) {
    Json entry = chat_entry(list[0], texts);
    Json top = Json::array();
    for (size_t i = 1; i < list.size(); ++i) top.push_back(chat_entry(list[i], texts));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}};
}

Json completion_logprobs(const std::vector<ScoredToken>& tokens,
                         const TokenTexts& texts,
                         int64_t* offset) {
  Json offsets = Json::array(), chosen = Json::array(), names = Json::array(), tops = Json::array();
  for (const ScoredToken& scored : tokens) {
    const std::string text = texts.text_of(scored.token);
    offsets.push_back(*offset);
    *offset += num_characters(text);
    names.push_back(text);
    if (scored.logprobs == nullptr) {
      chosen.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    chosen.push_back(finite((*scored.logprobs)[0].logprob));
    Json top = Json::object();
    for (size_t i = 1; i < scored.logprobs->size(); ++i) {
      const TokenLogprob& entry = (*scored.logprobs)[i];
      top[texts.text_of(entry.token)] = finite(entry.logprob);
    }
    top[text] = chosen.back();
    tops.push_back(std::move(top));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(chosen)},
          {"tokens", std::move(names)},
          {"top_logprobs", std::move(tops)}};
}

Json prompt_logprobs_json(const std::vector<LogprobList>& lists, const TokenTexts& texts) {
  Json out = Json::array({nullptr});
  for (const LogprobList& list : lists) {
    Json entries = Json::object();
    for (const TokenLogprob& entry : list) {
      entries[std::to_string(entry.token)] = {{"logprob", finite(entry.logprob)},
                                              {"rank", entry.rank},
                                              {"decoded_token", texts.text_of(entry.token)}};
    }
    out.push_back(std::move(entries));
  }
  return out;
}

}  // namespace quire
