#include "text/tokenizer.h"

#include <utility>

#include "base/mutants.h"
#include "text/ffi_buffers.h"

namespace quire {

using text_ffi::Bytes;
using text_ffi::Ids;

struct Tokenizer::Impl {
  explicit Impl(quire_text_tokenizer* h) : handle(h) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { quire_text_tokenizer_free(handle); }

  quire_text_tokenizer* handle;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from_json(std::string_view tokenizer_json) {
  quire_text_tokenizer* handle = nullptr;
  Bytes error;
  const int32_t code =
      quire_text_tokenizer_from_json(text_ffi::view(tokenizer_json), &handle, error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return Tokenizer(std::make_unique<Impl>(handle));
}

static std::vector<quire_text_view> views(const std::vector<std::string>& strings) {
  std::vector<quire_text_view> out;
  out.reserve(strings.size());
  for (const std::string& s : strings) out.push_back(text_ffi::view(s));
  return out;
}

Result<Tokenizer> Tokenizer::from_gguf(const GgufTokenizerSpec& spec) {
  const std::vector<quire_text_view> tokens = views(spec.tokens);
  const std::vector<quire_text_view> merges = views(spec.merges);
  const auto flag = [](std::optional<bool> f) { return f ? int32_t{*f} : -1; };
  const quire_text_gguf raw = {
      .model = text_ffi::view(spec.model),
      .pre = text_ffi::view(spec.pre),
      .tokens = tokens.data(),
      .num_tokens = tokens.size(),
      .merges = merges.data(),
      .num_merges = merges.size(),
      .scores = spec.scores.data(),
      .num_scores = spec.scores.size(),
      .token_types = spec.token_types.data(),
      .num_token_types = spec.token_types.size(),
      .bos = spec.bos.value_or(-1),
      .eos = spec.eos.value_or(-1),
      .unk = spec.unk.value_or(-1),
      .pad = spec.pad.value_or(-1),
      .add_bos = flag(spec.add_bos),
      .add_eos = flag(spec.add_eos),
      .add_space_prefix = flag(spec.add_space_prefix),
  };
  quire_text_tokenizer* handle = nullptr;
  Bytes error;
  const int32_t code = quire_text_tokenizer_from_gguf(&raw, &handle, error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return Tokenizer(std::make_unique<Impl>(handle));
}

Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  Ids ids;
  Bytes error;
  const int32_t code =
      quire_text_encode(impl_->handle,
                        text_ffi::view(text),
                        options.add_special_tokens,
                        options.parse_special_tokens || mutant("text_special_tokens_in_user_text"),
                        ids.out(),
                        error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return ids.vec();
}

Result<std::string> Tokenizer::decode(std::span<const TokenId> ids,
                                      bool skip_special_tokens) const {
  Bytes text;
  Bytes error;
  const int32_t code = quire_text_decode(
      impl_->handle, ids.data(), ids.size(), skip_special_tokens, text.out(), error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return text.str();
}

int Tokenizer::vocab_size() const { return quire_text_vocab_size(impl_->handle); }

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  const TokenId id = quire_text_token_to_id(impl_->handle, text_ffi::view(token));
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string> Tokenizer::id_to_token(TokenId id) const {
  Bytes token;
  if (quire_text_id_to_token(impl_->handle, id, token.out()) == 0) return std::nullopt;
  return token.str();
}

bool Tokenizer::is_special(TokenId id) const {
  return quire_text_is_special(impl_->handle, id) != 0;
}

struct Detokenizer::Impl {
  explicit Impl(quire_text_stream* s) : stream(s) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { quire_text_stream_free(stream); }

  quire_text_stream* stream;
};

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : impl_(std::make_unique<Impl>(
          quire_text_stream_new(tokenizer.impl_->handle, skip_special_tokens))) {}
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;
Detokenizer::~Detokenizer() = default;

// A decoder step of a tokenizer.json can fail on some ids (Tokenizer::decode then says why); in a
// stream they have no text.
std::string Detokenizer::push(TokenId id) {
  Bytes text;
  Bytes error;
  quire_text_stream_push(impl_->stream, id, text.out(), error.out());
  std::string out = text.str();
  if (mutant("text_half_character") && !out.empty() && out.back() < 0) out.pop_back();
  return out;
}

std::string Detokenizer::finish() {
  Bytes text;
  Bytes error;
  quire_text_stream_finish(impl_->stream, text.out(), error.out());
  return text.str();
}

}  // namespace quire
