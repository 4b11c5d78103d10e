// Any bytes as config.json and as generation_config.json; what is accepted has a usable rope table.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "model/config_reader.h"
#include "model/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto json = quire::parse_json(std::string_view(reinterpret_cast<const char*>(data), size),
                                quire::JsonLimits{.max_depth = 64, .max_values = 1 << 16});
  if (!json.ok()) return 0;
  std::vector<int32_t> eos;
  (void)quire::generation_from_json(*json, &eos);
  auto parsed = quire::config_from_json(*json);
  if (!parsed.ok()) return 0;
  for (double frequency : quire::rope_inverse_frequencies(parsed->config.rope)) {
    QUIRE_CHECK(std::isfinite(frequency));
  }
  QUIRE_CHECK(std::isfinite(quire::rope_attention_factor(parsed->config.rope)));
  return 0;
}
