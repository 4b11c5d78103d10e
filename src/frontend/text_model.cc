#include "frontend/text_model.h"

#include <bit>
#include <utility>

#include "base/files.h"

namespace quire {
namespace {

Result<Tokenizer> make_tokenizer(const TokenizerSource& source) {
  if (const auto* json = std::get_if<std::string>(&source)) return Tokenizer::from_json(*json);
  return Tokenizer::from_gguf(std::get<GgufTokenizerSpec>(source));
}

}  // namespace

// Two hash tables between texts and ids (33 bytes a bucket, at most 7/8 full), each with a copy of
// every text (48 bytes with its allocation); one table of merges (17 bytes); what splits text. Of a
// tokenizer.json the counts are not known yet: its text is about a fifth of that.
int64_t tokenizer_bytes(const TokenizerSource& source) {
  constexpr int64_t kRest = 3 << 19;
  const auto buckets = [](size_t count) {
    return static_cast<int64_t>(std::bit_ceil(count * 8 / 7 + 1));
  };
  const auto* gguf = std::get_if<GgufTokenizerSpec>(&source);
  if (gguf == nullptr) return static_cast<int64_t>(std::get<std::string>(source).size()) * 5;
  const size_t tokens = gguf->tokens.size();
  return 2 * (buckets(tokens) * 33 + static_cast<int64_t>(tokens) * 48) +
         buckets(gguf->merges.size()) * 17 + kRest;
}

Result<TextModel> make_text_model(const ModelInfo& info, const std::string& chat_template_file) {
  QUIRE_ASSIGN_OR_RETURN(Tokenizer tokenizer, make_tokenizer(info.tokenizer));
  if (tokenizer.vocab_size() > info.config.vocab_size) {
    return data_loss(info.path.string() + ": the tokenizer has " +
                     std::to_string(tokenizer.vocab_size()) + " tokens, the embedding only " +
                     std::to_string(info.config.vocab_size) +
                     " rows; the tokenizer is of another model: fetch both from the same place");
  }
  TextModel model{.tokenizer = std::move(tokenizer)};
  std::optional<std::string> source = info.chat_template;
  if (!chat_template_file.empty()) {
    QUIRE_ASSIGN_OR_RETURN(source, read_whole_file(chat_template_file, "the chat template"));
  }
  if (source) {
    QUIRE_ASSIGN_OR_RETURN(model.chat_template, ChatTemplate::compile(*source));
  }
  model.template_tokens = {.bos = info.special_tokens.bos.value_or(""),
                           .eos = info.special_tokens.eos.value_or(""),
                           .pad = info.special_tokens.pad.value_or(""),
                           .unk = info.special_tokens.unk.value_or("")};
  for (TokenId id = 0; id < model.tokenizer.vocab_size(); ++id) {
    if (!model.tokenizer.is_special(id)) continue;
    if (std::optional<std::string> token = model.tokenizer.id_to_token(id)) {
      model.special_tokens.push_back(std::move(*token));
    }
  }
  return model;
}

}  // namespace quire
