// What the tests share: tokenizer metadata from the JSON files of scripts/golden/tokenizer_ids.py,
// and from a GGUF file (key-value section only, read with bounds checks by exceptions of
// std::ifstream).
#pragma once

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace quire::test {

using Json = nlohmann::ordered_json;

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline GgufTokenizerSpec spec_from_json(const Json& json) {
  GgufTokenizerSpec spec;
  spec.model = json.at("model");
  spec.pre = json.at("pre");
  spec.tokens = json.at("tokens").get<std::vector<std::string>>();
  if (json.contains("merges")) spec.merges = json["merges"].get<std::vector<std::string>>();
  if (json.contains("scores")) spec.scores = json["scores"].get<std::vector<float>>();
  if (json.contains("token_types")) {
    spec.token_types = json["token_types"].get<std::vector<int32_t>>();
  }
  const auto id = [&](const char* key) {
    return json.contains(key) ? std::optional<TokenId>(json[key].get<TokenId>()) : std::nullopt;
  };
  const auto flag = [&](const char* key) {
    return json.contains(key) ? std::optional<bool>(json[key].get<bool>()) : std::nullopt;
  };
  spec.bos = id("bos");
  spec.eos = id("eos");
  spec.unk = id("unk");
  spec.pad = id("pad");
  spec.add_bos = flag("add_bos");
  spec.add_eos = flag("add_eos");
  spec.add_space_prefix = flag("add_space_prefix");
  return spec;
}

// Reads tokenizer.ggml.* of a GGUF v3 file into the JSON form above.
class GgufMetadata {
 public:
  explicit GgufMetadata(const std::string& path) : file_(path, std::ios::binary) {
    file_.exceptions(std::ios::failbit | std::ios::badbit | std::ios::eofbit);
    char magic[8];
    file_.read(magic, 8);
    if (std::string_view(magic, 4) != "GGUF") throw std::runtime_error(path + " is not GGUF");
    number<uint64_t>();
    const uint64_t num_values = number<uint64_t>();
    for (uint64_t i = 0; i < num_values; ++i) {
      std::string key = string();
      Json value = read(number<uint32_t>());
      if (key.starts_with("tokenizer.ggml.")) values_[key.substr(15)] = std::move(value);
    }
  }

  GgufTokenizerSpec spec() const {
    static constexpr std::pair<const char*, const char*> kNames[] = {
        {"model", "model"},
        {"pre", "pre"},
        {"tokens", "tokens"},
        {"merges", "merges"},
        {"scores", "scores"},
        {"token_type", "token_types"},
        {"bos_token_id", "bos"},
        {"eos_token_id", "eos"},
        {"unknown_token_id", "unk"},
        {"padding_token_id", "pad"},
        {"add_bos_token", "add_bos"},
        {"add_eos_token", "add_eos"},
    };
    Json json;
    for (const auto& [key, name] : kNames) {
      if (values_.contains(key)) json[name] = values_[key];
    }
    return spec_from_json(json);
  }

 private:
  template <class T>
  T number() {
    T value;
    file_.read(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }

  std::string string() {
    std::string text(number<uint64_t>(), '\0');
    file_.read(text.data(), static_cast<std::streamsize>(text.size()));
    return text;
  }

  Json read(uint32_t type) {
    switch (type) {
      case 0:
        return number<uint8_t>();
      case 1:
        return number<int8_t>();
      case 2:
        return number<uint16_t>();
      case 3:
        return number<int16_t>();
      case 4:
        return number<uint32_t>();
      case 5:
        return number<int32_t>();
      case 6:
        return number<float>();
      case 7:
        return number<uint8_t>() != 0;
      case 8:
        return string();
      case 9: {
        const uint32_t item = number<uint32_t>();
        const uint64_t size = number<uint64_t>();
        Json array = Json::array();
        for (uint64_t i = 0; i < size; ++i) array.push_back(read(item));
        return array;
      }
      case 10:
        return number<uint64_t>();
      case 11:
        return number<int64_t>();
      case 12:
        return number<double>();
      default:
        throw std::runtime_error("GGUF value type " + std::to_string(type));
    }
  }

  std::ifstream file_;
  Json values_;
};

inline double thread_cpu_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The default model in the cache; empty if it was not fetched.
inline std::string smollm2_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string root = cache ? cache : std::string(home ? home : "") + "/.cache";
  const std::string path = root + "/quire/models/smollm2.gguf";
  return std::filesystem::exists(path) ? path : "";
}

}  // namespace quire::test
