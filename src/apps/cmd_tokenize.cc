// quire tokenize, quire detokenize.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.h"
#include "base/files.h"
#include "frontend/json.h"
#include "frontend/text_model.h"
#include "model/loader.h"

namespace quire {
namespace {

struct TokenizeFlags {
  std::string model, prompt, file;
  std::vector<int64_t> ids;
  bool no_special = false, parse_special = false, json = false, skip_special = false;
};

Result<TextModel> load_text(const std::string& model) {
  QUIRE_ASSIGN_OR_RETURN(const std::filesystem::path path, resolve_model(model));
  QUIRE_ASSIGN_OR_RETURN(ModelInfo info, inspect_model(path));
  return make_text_model(info);
}

Result<std::string> read_text(const TokenizeFlags& flags) {
  if (flags.file.empty() && flags.prompt != "-") return flags.prompt;
  return read_whole_file(flags.file.empty() ? "-" : flags.file, "the text");
}

Status tokenize(const TokenizeFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const std::string text, read_text(flags));
  QUIRE_ASSIGN_OR_RETURN(const TextModel model, load_text(flags.model));
  QUIRE_ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                         model.tokenizer.encode(text,
                                                {.add_special_tokens = !flags.no_special,
                                                 .parse_special_tokens = flags.parse_special}));
  if (flags.json) {
    Json tokens = Json::array();
    for (const TokenId id : ids) tokens.push_back(model.tokenizer.id_to_token(id).value_or(""));
    std::puts(dump_json({{"token_ids", ids}, {"tokens", tokens}, {"count", ids.size()}}).c_str());
    return {};
  }
  for (size_t i = 0; i < ids.size(); ++i) std::printf(i == 0 ? "%d" : " %d", ids[i]);
  std::printf("\n");
  return {};
}

Status detokenize(const TokenizeFlags& flags) {
  QUIRE_ASSIGN_OR_RETURN(const TextModel model, load_text(flags.model));
  std::vector<int64_t> given = flags.ids;
  if (given.empty()) {
    for (int64_t id; std::cin >> id;) given.push_back(id);
    if (!std::cin.eof())
      return invalid_argument("standard input must hold token ids, separated by spaces");
  }
  std::vector<TokenId> ids;
  for (const int64_t id : given) {
    if (id < 0 || id >= model.tokenizer.vocab_size()) {
      return invalid_argument("token id " + std::to_string(id) + " is not in [0, " +
                              std::to_string(model.tokenizer.vocab_size()) +
                              "), the range of this model's vocabulary");
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  QUIRE_ASSIGN_OR_RETURN(const std::string text, model.tokenizer.decode(ids, flags.skip_special));
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  return {};
}

}  // namespace

Command add_tokenize_command(CommandLine line) {
  auto flags = std::make_shared<TokenizeFlags>();
  line.option("MODEL", flags->model, "model, as for quire run").required();
  line.option("-p,--prompt", flags->prompt, "the text; - reads standard input");
  line.option("-f,--file", flags->file, "read the text from this file; - is standard input")
      .excludes("-p");
  line.flag(
      "--no-special-tokens", flags->no_special, "do not add the model's own special tokens (BOS)");
  line.flag("--parse-special-tokens",
            flags->parse_special,
            "read special tokens in the text as such, not as characters");
  line.flag("--json", flags->json, "print ids, tokens and their count as one JSON object");
  return [flags] { return tokenize(*flags); };
}

Command add_detokenize_command(CommandLine line) {
  auto flags = std::make_shared<TokenizeFlags>();
  line.option("MODEL", flags->model, "model, as for quire run").required();
  line.option("IDS", flags->ids, "token ids; without any they are read from standard input");
  line.flag("--skip-special-tokens", flags->skip_special, "leave special tokens out");
  return [flags] { return detokenize(*flags); };
}

}  // namespace quire
