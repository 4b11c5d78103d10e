#include "apps/logits_file.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "frontend/json.h"
#include "model/safetensors.h"

namespace quire {

Result<std::unique_ptr<LogitsReader>> LogitsReader::open(const std::string& path) {
  std::unique_ptr<LogitsReader> reader(new LogitsReader);
  QUIRE_ASSIGN_OR_RETURN(InputFile file, InputFile::open(path));
  QUIRE_RETURN_IF_ERROR(read_safetensors(std::move(file), &reader->file_).with_context(path));
  const TensorInfo* tokens = reader->file_.find("tokens");
  const TensorInfo* logits = reader->file_.find("logits");
  if (tokens == nullptr || tokens->dtype != DType::kI32 || tokens->shape.size() != 2 ||
      logits == nullptr || logits->dtype != DType::kF32 || logits->shape.size() != 3 ||
      logits->shape[0] != tokens->shape[0] || logits->shape[1] != tokens->shape[1]) {
    return data_loss(path +
                     " must hold \"tokens\" I32 [C, T] and \"logits\" F32 [C, T, V]; make it with "
                     "quire perplexity --save-kl-base");
  }
  reader->context_ = logits->shape[1];
  reader->vocab_size_ = logits->shape[2];
  reader->row_.resize(reader->vocab_size_);
  reader->chunks_.resize(tokens->shape[0], std::vector<TokenId>(reader->context_));
  for (int64_t c = 0; c < tokens->shape[0]; ++c) {
    const int64_t bytes = reader->context_ * 4;
    QUIRE_RETURN_IF_ERROR(reader->file_.read(*tokens, c * bytes, bytes, reader->chunks_[c].data()));
  }
  return reader;
}

Result<std::span<const float>> LogitsReader::read(int64_t chunk, int64_t position) {
  const int64_t bytes = vocab_size_ * 4;
  QUIRE_RETURN_IF_ERROR(
      file_.read(*file_.find("logits"), (chunk * context_ + position) * bytes, bytes, row_.data()));
  return std::span<const float>(row_);
}

Result<std::unique_ptr<LogitsWriter>> LogitsWriter::create(
    const std::string& path, const std::vector<std::vector<TokenId>>& chunks, int64_t vocab_size) {
  std::unique_ptr<LogitsWriter> writer(new LogitsWriter);
  writer->path_ = path;
  writer->file_ = std::fopen(path.c_str(), "wb");
  if (writer->file_ == nullptr) {
    return unavailable("cannot write " + path + ": " + std::strerror(errno));
  }
  const int64_t num_chunks = static_cast<int64_t>(chunks.size());
  const int64_t context = static_cast<int64_t>(chunks[0].size());
  const int64_t token_bytes = num_chunks * context * 4;
  const Json header = {
      {"tokens",
       {{"dtype", "I32"}, {"shape", {num_chunks, context}}, {"data_offsets", {0, token_bytes}}}},
      {"logits",
       {{"dtype", "F32"},
        {"shape", {num_chunks, context, vocab_size}},
        {"data_offsets", {token_bytes, token_bytes + token_bytes * vocab_size}}}}};
  std::string text = dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  QUIRE_RETURN_IF_ERROR(writer->write(&size, sizeof size));
  QUIRE_RETURN_IF_ERROR(writer->write(text.data(), text.size()));
  for (const std::vector<TokenId>& chunk : chunks) {
    QUIRE_RETURN_IF_ERROR(writer->write(chunk.data(), chunk.size() * 4));
  }
  writer->rows_left_ = num_chunks * context;
  return writer;
}

LogitsWriter::~LogitsWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

Status LogitsWriter::write(const void* data, size_t size) {
  if (std::fwrite(data, 1, size, file_) == size) return {};
  return unavailable("cannot write " + path_ + ": " + std::strerror(errno));
}

Status LogitsWriter::append(std::span<const float> logits) {
  --rows_left_;
  return write(logits.data(), logits.size_bytes());
}

Status LogitsWriter::finish() {
  if (std::fflush(file_) != 0)
    return unavailable("cannot write " + path_ + ": " + std::strerror(errno));
  if (rows_left_ != 0)
    return internal_error(path_ + ": " + std::to_string(rows_left_) + " rows missing");
  return {};
}

}  // namespace quire
