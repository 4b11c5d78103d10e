// encode_lines (--json tokenizer.json | --spec metadata.json | --gguf model.gguf) (--parse |
// --plain) Reads one JSON string a line, writes its ids. --parse: special tokens are recognised and
// added;
// --plain: neither. For scripts/golden/tokenizer_ids.py.
#include <cstdio>
#include <iostream>
#include <string>

#include "text/tokenizer_files.h"

using quire::Tokenizer;
using quire::test::GgufMetadata;
using quire::test::Json;

static quire::Result<Tokenizer> load(const std::string& kind, const std::string& path) {
  if (kind == "--gguf") return Tokenizer::from_gguf(GgufMetadata(path).spec());
  const std::string text = quire::test::read_file(path);
  if (kind == "--json") return Tokenizer::from_json(text);
  return Tokenizer::from_gguf(quire::test::spec_from_json(Json::parse(text)));
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const auto tokenizer = load(argv[1], argv[2]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().message().c_str());
    return 1;
  }
  const bool parse = std::string(argv[3]) == "--parse";
  const Tokenizer::EncodeOptions options = {.add_special_tokens = parse,
                                            .parse_special_tokens = parse};
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto ids = tokenizer->encode(Json::parse(line).get<std::string>(), options);
    if (!ids.ok()) {
      std::fprintf(stderr, "%s\n", ids.status().message().c_str());
      return 1;
    }
    std::string out;
    for (const quire::TokenId id : *ids) out += std::to_string(id) + " ";
    std::puts(out.c_str());
  }
}
