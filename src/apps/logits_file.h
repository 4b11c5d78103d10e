// Reference logits of quire perplexity: a safetensors file with "tokens" I32 [C, T] and "logits"
// F32 [C, T, V].
#pragma once

#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace quire {

// Reads one position at a time: the file may be larger than memory.
class LogitsReader {
 public:
  static Result<std::unique_ptr<LogitsReader>> open(const std::string& path);
  int64_t vocab_size() const { return vocab_size_; }
  const std::vector<std::vector<TokenId>>& chunks() const { return chunks_; }
  // Valid until the next call.
  Result<std::span<const float>> read(int64_t chunk, int64_t position);

 private:
  LogitsReader() = default;

  Checkpoint file_;
  int64_t vocab_size_ = 0, context_ = 0;
  std::vector<std::vector<TokenId>> chunks_;
  std::vector<float> row_;
};

// Positions are appended in order, chunk after chunk.
class LogitsWriter {
 public:
  static Result<std::unique_ptr<LogitsWriter>> create(
      const std::string& path, const std::vector<std::vector<TokenId>>& chunks, int64_t vocab_size);
  ~LogitsWriter();
  Status append(std::span<const float> logits);
  Status finish();

 private:
  LogitsWriter() = default;
  Status write(const void* data, size_t size);

  std::string path_;
  std::FILE* file_ = nullptr;
  int64_t rows_left_ = 0;
};

}  // namespace quire
