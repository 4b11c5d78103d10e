/* The C ABI of the quire-text crate. No call unwinds into its caller: a panic inside becomes status
 * 1. Handles are immutable (a stream is not) and may be used from any thread. Buffers that a call
 * fills belong to the caller, who frees them with the matching function. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_text_tokenizer quire_text_tokenizer;
typedef struct quire_text_stream quire_text_stream;
typedef struct quire_text_template quire_text_template;

/* Borrowed bytes. data may be null when size is 0. */
typedef struct {
  const uint8_t* data;
  size_t size;
} quire_text_view;

/* Owned bytes: the text of a result, or of an error. */
typedef struct {
  uint8_t* data;
  size_t size;
  size_t capacity;
} quire_text_bytes;

/* Owned token ids. */
typedef struct {
  int32_t* data;
  size_t size;
  size_t capacity;
} quire_text_ids;

/* tokenizer.ggml.* of a GGUF file. A negative id is absent; a flag is -1 absent, 0 false, 1 true.
 */
typedef struct {
  quire_text_view model;
  quire_text_view pre;
  const quire_text_view* tokens;
  size_t num_tokens;
  const quire_text_view* merges;
  size_t num_merges;
  const float* scores;
  size_t num_scores;
  const int32_t* token_types;
  size_t num_token_types;
  int32_t bos, eos, unk, pad;
  int32_t add_bos, add_eos, add_space_prefix;
} quire_text_gguf;

void quire_text_bytes_free(quire_text_bytes bytes);
void quire_text_ids_free(quire_text_ids ids);

/* Every int32_t result below is 0, or a quire::StatusCode with its message in *error. */

int32_t quire_text_tokenizer_from_json(quire_text_view json,
                                       quire_text_tokenizer** out,
                                       quire_text_bytes* error);
int32_t quire_text_tokenizer_from_gguf(const quire_text_gguf* spec,
                                       quire_text_tokenizer** out,
                                       quire_text_bytes* error);
void quire_text_tokenizer_free(quire_text_tokenizer* tokenizer);

int32_t quire_text_encode(const quire_text_tokenizer* tokenizer,
                          quire_text_view text,
                          int32_t add_special_tokens,
                          int32_t parse_special_tokens,
                          quire_text_ids* out,
                          quire_text_bytes* error);
int32_t quire_text_decode(const quire_text_tokenizer* tokenizer,
                          const int32_t* ids,
                          size_t num_ids,
                          int32_t skip_special_tokens,
                          quire_text_bytes* out,
                          quire_text_bytes* error);

int32_t quire_text_vocab_size(const quire_text_tokenizer* tokenizer);
/* The id, or -1. */
int32_t quire_text_token_to_id(const quire_text_tokenizer* tokenizer, quire_text_view token);
/* 1 and the token in *out, or 0. */
int32_t quire_text_id_to_token(const quire_text_tokenizer* tokenizer,
                               int32_t id,
                               quire_text_bytes* out);
int32_t quire_text_is_special(const quire_text_tokenizer* tokenizer, int32_t id);

/* A stream keeps what it needs of its tokenizer alive. */
quire_text_stream* quire_text_stream_new(const quire_text_tokenizer* tokenizer,
                                         int32_t skip_special_tokens);
void quire_text_stream_free(quire_text_stream* stream);
int32_t quire_text_stream_push(quire_text_stream* stream,
                               int32_t id,
                               quire_text_bytes* out,
                               quire_text_bytes* error);
int32_t quire_text_stream_finish(quire_text_stream* stream,
                                 quire_text_bytes* out,
                                 quire_text_bytes* error);

int32_t quire_text_template_compile(quire_text_view source,
                                    quire_text_template** out,
                                    quire_text_bytes* error);
void quire_text_template_free(quire_text_template* tmpl);
/* local_seconds: now, as seconds since 1970-01-01T00:00:00 on the local clock (for strftime_now).
 */
int32_t quire_text_template_render(const quire_text_template* tmpl,
                                   quire_text_view context_json,
                                   int64_t local_seconds,
                                   quire_text_bytes* out,
                                   quire_text_bytes* error);

#ifdef __cplusplus
}
#endif
