// Any bytes as a safetensors file.
#include <cstdint>
#include <string>

#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quire::Checkpoint checkpoint;
  quire::Status status = quire::read_safetensors(
      quire::InputFile::from_memory("fuzz.safetensors",
                                    std::string(reinterpret_cast<const char*>(data), size)),
      &checkpoint);
  if (!status.ok() || !checkpoint.check_no_overlap().ok()) return 0;
  for (const quire::TensorInfo& tensor : checkpoint.tensors()) {
    char last = 0;
    if (tensor.bytes > 0) {
      QUIRE_CHECK(checkpoint.read(tensor, tensor.bytes - 1, 1, &last).ok());
    }
  }
  return 0;
}
