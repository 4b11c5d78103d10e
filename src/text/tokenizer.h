// Strings <-> token ids, and chat messages -> prompt text.
//
// Wraps three Rust crates behind the C ABI of text/ffi: Hugging Face `tokenizers`, `minijinja` and
// `minijinja-contrib`. Everything here is immutable after construction and safe to call from any
// thread; no call blocks on another.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/gguf_tokenizer_spec.h"
#include "base/status.h"

namespace quire {

using TokenId = int32_t;

class Tokenizer {
 public:
  // tokenizer.json as published, byte for byte.
  static Result<Tokenizer> from_json(std::string_view tokenizer_json);
  static Result<Tokenizer> from_gguf(const GgufTokenizerSpec& spec);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  struct EncodeOptions {
    bool add_special_tokens = true;     // run the post-processor (BOS, EOS templates)
    bool parse_special_tokens = false;  // false: text such as "<|im_end|>" in user input stays text
  };
  // `text` must be valid UTF-8, else kInvalidArgument with the offset of the first bad byte.
  Result<std::vector<TokenId>> encode(std::string_view text, EncodeOptions options) const;
  Result<std::string> decode(std::span<const TokenId> ids, bool skip_special_tokens = true) const;

  int vocab_size() const;  // highest id + 1, added tokens included
  std::optional<TokenId> token_to_id(std::string_view token) const;
  std::optional<std::string> id_to_token(TokenId id) const;
  bool is_special(TokenId id) const;

 private:
  friend class Detokenizer;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Incremental detokenizer of one stream. Invariant: the concatenation of everything that push() and
// finish() return equals Tokenizer::decode of all ids; no call returns half a UTF-8 character.
// An id costs what its own text costs, however long the stream. What a later id could still change
// is held back: an incomplete character, or a run of SentencePiece byte tokens until it ends
// (decode turns the whole run into U+FFFD when any part of it is invalid).
class Detokenizer {
 public:
  // Keeps what it needs of `tokenizer` alive.
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;
  ~Detokenizer();

  std::string push(TokenId id);  // an id outside the vocabulary has no text
  std::string finish();          // what was held back; afterwards a new stream can start

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
