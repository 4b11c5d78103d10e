// Any bytes as a GGUF file: an error or a file, never a crash, a hang or a large allocation.
#include <cstdint>
#include <string>

#include "model/config_reader.h"
#include "model/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto file = quire::read_gguf(quire::InputFile::from_memory(
      "fuzz.gguf", std::string(reinterpret_cast<const char*>(data), size)));
  if (!file.ok()) return 0;
  for (const quire::TensorInfo& tensor : file->checkpoint.tensors()) {
    char last = 0;  // what the header promises can be read
    if (tensor.bytes > 0) {
      QUIRE_CHECK(file->checkpoint.read(tensor, tensor.bytes - 1, 1, &last).ok());
    }
  }
  auto parsed = quire::config_from_gguf(*file);
  if (!parsed.ok()) return 0;
  (void)quire::tokenizer_from_gguf(file->metadata, parsed->config.vocab_size);
  return 0;
}
