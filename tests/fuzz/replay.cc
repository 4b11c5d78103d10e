// Runs a fuzz target over the files of a corpus, and over every truncation and some bit flips of
// each: what a build without libFuzzer can check in a second.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  int num_files = 0;
  long num_inputs = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(file)), {});
      run(bytes);
      for (size_t size = 0; size < bytes.size(); ++size) run(bytes.substr(0, size));
      for (size_t at = 0; at < bytes.size(); ++at) {
        std::string flipped = bytes;
        flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
        run(flipped);
      }
      num_inputs += 1 + 2 * static_cast<long>(bytes.size());
      ++num_files;
    }
  }
  std::printf("%d files, %ld inputs\n", num_files, num_inputs);
  return num_files == 0;  // an empty corpus proves nothing
}
