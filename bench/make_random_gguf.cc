// Writes a Llama model with random weights as a GGUF v3 file, to measure speed on shapes whose real
// weights are not at hand. The text such a model gives is noise.
//
// The bytes depend on preset, type and seed alone. Weights have a standard deviation of 1/sqrt(K),
// K the input width, so that activations neither vanish nor overflow and no block scale is a
// denormal half.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int kBlock = 32;  // weights of a Q4_0 or Q8_0 block, with one half-precision scale
constexpr size_t kAlignment = 32;

struct Preset {
  const char* name;
  uint32_t layers, hidden, heads, kv_heads, intermediate, vocab, context;
  float rope_theta;
};
// 135m and 1b have published shapes: SmolLM2-135M and Llama 3.2 1B. Output and embedding share one
// matrix in all.
constexpr Preset kPresets[] = {
    {"tiny", 2, 64, 4, 2, 160, 512, 2048, 10000.f},
    {"30m", 12, 384, 6, 2, 1024, 32768, 2048, 10000.f},
    {"135m", 30, 576, 9, 3, 1536, 49152, 8192, 100000.f},
    {"1b", 16, 2048, 32, 8, 8192, 128256, 131072, 500000.f},
};

struct Type {
  const char* name;
  uint32_t gguf_id, file_type;
  size_t block_bytes;  // of kBlock weights
};
constexpr Type kF32 = {"f32", 0, 0, kBlock * 4};
constexpr Type kTypes[] = {
    kF32, {"f16", 1, 1, kBlock * 2}, {"q4_0", 2, 2, 2 + 16}, {"q8_0", 8, 7, 2 + 32}};

struct Tensor {
  std::string name;
  std::vector<uint64_t> shape;  // fastest dimension first, as in GGUF
  Type type;
  bool is_norm;

  uint64_t num_blocks() const {
    uint64_t n = 1;
    for (const uint64_t dim : shape) n *= dim;
    return n / kBlock;
  }
  uint64_t padded_bytes() const {
    return (num_blocks() * type.block_bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
};

// SplitMix64: its finaliser over a counter. Seeded anew for each block of 32 weights, so that a
// block's weights depend on nothing before it.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // Sum of four uniform 16-bit pieces: close to normal, mean 0, variance 1, never beyond 3.47.
  float normal() {
    const uint64_t bits = next();
    float sum = 0;
    for (int piece = 0; piece < 4; ++piece) sum += float((bits >> (16 * piece)) & 0xFFFF) + 0.5f;
    return (sum / 65536.f - 2.f) * 1.7320508f;
  }

 private:
  uint64_t state_;
};

// Rounds to the nearest half, ties to even. `value` is zero or of normal half magnitude.
uint16_t to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude < (113u << 23)) return uint16_t(sign);  // below 2^-14: no denormals
  const uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return uint16_t(sign | ((rounded - (112u << 23)) >> 13));
}

void put_half(float value, uint8_t* out) {
  const uint16_t half = to_half(value);
  out[0] = uint8_t(half);
  out[1] = uint8_t(half >> 8);
}

using Weights = std::array<float, kBlock>;

// Q8_0: half scale, then 32 signed bytes.
void encode_q8_0(const Weights& x, uint8_t* out) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::fabs(v));
  const float scale = largest / 127;
  put_half(scale, out);
  for (int i = 0; i < kBlock; ++i) out[2 + i] = uint8_t(int8_t(std::lround(x[i] / scale)));
}

// Q4_0: half scale, then 16 bytes whose low nibbles are weights 0..15 and high nibbles 16..31, each
// with an offset of 8. The scale's sign makes the weight of largest magnitude the nibble 0.
void encode_q4_0(const Weights& x, uint8_t* out) {
  const float extreme = *std::max_element(
      x.begin(), x.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  const float scale = extreme / -8;
  put_half(scale, out);
  const auto nibble = [&](float v) {
    return uint8_t(std::clamp(std::lround(v / scale) + 8, 0l, 15l));
  };
  for (int i = 0; i < 16; ++i) out[2 + i] = uint8_t(nibble(x[i]) | nibble(x[i + 16]) << 4);
}

void encode(const Type& type, const Weights& x, uint8_t* out) {
  switch (type.gguf_id) {
    case 0:
      std::copy_n(reinterpret_cast<const uint8_t*>(x.data()), sizeof(x), out);
      break;
    case 1:
      for (int i = 0; i < kBlock; ++i) put_half(x[i], out + 2 * i);
      break;
    case 2:
      encode_q4_0(x, out);
      break;
    default:
      encode_q8_0(x, out);
  }
}

// GGUF's little-endian primitives, appended to a buffer.
class Header {
 public:
  template <class T>
  void put(T value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
  }
  void text(std::string_view s) {
    put<uint64_t>(s.size());
    bytes_.insert(bytes_.end(), s.begin(), s.end());
  }
  void key(std::string_view name, uint32_t type) {
    text(name);
    put(type);
    ++num_keys_;
  }
  void u32(std::string_view name, uint32_t v) { key(name, 4), put(v); }
  void f32(std::string_view name, float v) { key(name, 6), put(v); }
  void flag(std::string_view name, bool v) { key(name, 7), put<uint8_t>(v); }
  void string(std::string_view name, std::string_view v) { key(name, 8), text(v); }
  void array(std::string_view name, uint32_t element_type, uint64_t count) {
    key(name, 9), put(element_type), put(count);
  }
  void pad() { bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment); }
  void append(const Header& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  uint64_t num_keys() const { return num_keys_; }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t num_keys_ = 0;
};

std::vector<Tensor> list_tensors(const Preset& p, const Type& type) {
  const uint64_t e = p.hidden, kv = uint64_t(p.hidden / p.heads) * p.kv_heads, i = p.intermediate;
  std::vector<Tensor> tensors;
  const auto matrix = [&](std::string name, uint64_t in, uint64_t out) {
    tensors.push_back({std::move(name), {in, out}, type, false});
  };
  const auto norm = [&](std::string name) {
    tensors.push_back({std::move(name), {e}, kF32, true});
  };
  matrix("token_embd.weight", e, p.vocab);
  for (uint32_t layer = 0; layer < p.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    norm(prefix + "attn_norm.weight");
    matrix(prefix + "attn_q.weight", e, e);
    matrix(prefix + "attn_k.weight", e, kv);
    matrix(prefix + "attn_v.weight", e, kv);
    matrix(prefix + "attn_output.weight", e, e);
    norm(prefix + "ffn_norm.weight");
    matrix(prefix + "ffn_gate.weight", e, i);
    matrix(prefix + "ffn_up.weight", e, i);
    matrix(prefix + "ffn_down.weight", i, e);
  }
  norm("output_norm.weight");
  return tensors;
}

void put_model(const Preset& p, const Type& type, Header& h) {
  h.string("general.architecture", "llama");
  h.string("general.name", std::string("random-") + p.name);
  h.u32("general.file_type", type.file_type);
  h.u32("general.quantization_version", 2);
  h.u32("general.alignment", kAlignment);
  h.u32("llama.block_count", p.layers);
  h.u32("llama.context_length", p.context);
  h.u32("llama.embedding_length", p.hidden);
  h.u32("llama.feed_forward_length", p.intermediate);
  h.u32("llama.attention.head_count", p.heads);
  h.u32("llama.attention.head_count_kv", p.kv_heads);
  h.u32("llama.rope.dimension_count", p.hidden / p.heads);
  h.f32("llama.rope.freq_base", p.rope_theta);
  h.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  h.u32("llama.vocab_size", p.vocab);
}

// A SentencePiece vocabulary: <unk>, <s>, </s>, the 256 bytes, then fillers that no text contains.
void put_tokenizer(const Preset& p, Header& h) {
  constexpr uint32_t kFirstByte = 3, kFirstFiller = kFirstByte + 256;
  h.string("tokenizer.ggml.model", "llama");
  h.string("tokenizer.ggml.pre", "default");
  h.array("tokenizer.ggml.tokens", 8, p.vocab);
  for (uint32_t id = 0; id < p.vocab; ++id) {
    char token[24];
    constexpr const char* kSpecial[] = {"<unk>", "<s>", "</s>"};
    if (id < kFirstByte) {
      h.text(kSpecial[id]);
      continue;
    }
    std::snprintf(token,
                  sizeof(token),
                  id < kFirstFiller ? "<0x%02X>" : "\xE2\x96\x81token%u",
                  id < kFirstFiller ? id - kFirstByte : id);
    h.text(token);
  }
  h.array("tokenizer.ggml.scores", 6, p.vocab);
  for (uint32_t id = 0; id < p.vocab; ++id) h.put(-float(id));
  h.array("tokenizer.ggml.token_type", 5, p.vocab);
  for (uint32_t id = 0; id < p.vocab; ++id) {
    enum : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };
    h.put<int32_t>(id == 0             ? kUnknown
                   : id < kFirstByte   ? kControl
                   : id < kFirstFiller ? kByte
                                       : kNormal);
  }
  h.u32("tokenizer.ggml.bos_token_id", 1);
  h.u32("tokenizer.ggml.eos_token_id", 2);
  h.u32("tokenizer.ggml.unknown_token_id", 0);
  h.flag("tokenizer.ggml.add_bos_token", true);
  h.flag("tokenizer.ggml.add_eos_token", false);
}

Header make_header(const Preset& p, const Type& type, const std::vector<Tensor>& tensors) {
  Header metadata;
  put_model(p, type, metadata);
  put_tokenizer(p, metadata);
  Header h;
  h.put<uint32_t>(0x46554747);  // "GGUF"
  h.put<uint32_t>(3);
  h.put<uint64_t>(tensors.size());
  h.put<uint64_t>(metadata.num_keys());
  h.append(metadata);
  uint64_t offset = 0;
  for (const Tensor& t : tensors) {
    h.text(t.name);
    h.put<uint32_t>(uint32_t(t.shape.size()));
    for (const uint64_t dim : t.shape) h.put(dim);
    h.put(t.type.gguf_id);
    h.put(offset);
    offset += t.padded_bytes();
  }
  h.pad();
  return h;
}

// Streams one tensor, a megabyte or so at a time.
bool write_tensor(const Tensor& t, uint64_t seed, std::FILE* file) {
  constexpr uint64_t kBlocksAtOnce = 1 << 15;
  const float deviation = 1.f / std::sqrt(float(t.shape[0]));
  std::vector<uint8_t> buffer;
  for (uint64_t first = 0; first < t.num_blocks(); first += kBlocksAtOnce) {
    const uint64_t count = std::min(kBlocksAtOnce, t.num_blocks() - first);
    buffer.resize(count * t.type.block_bytes);
    for (uint64_t b = 0; b < count; ++b) {
      Random random(Random(seed ^ (first + b)).next());
      Weights x;
      for (float& v : x)
        v = t.is_norm ? 1.f + 0.02f * random.normal() : deviation * random.normal();
      encode(t.type, x, buffer.data() + b * t.type.block_bytes);
    }
    if (std::fwrite(buffer.data(), 1, buffer.size(), file) != buffer.size()) return false;
  }
  const uint64_t padding = t.padded_bytes() - t.num_blocks() * t.type.block_bytes;
  const std::array<uint8_t, kAlignment> zeros{};
  return std::fwrite(zeros.data(), 1, padding, file) == padding;
}

bool write_model(const Preset& preset, const Type& type, uint64_t seed, std::FILE* file) {
  const std::vector<Tensor> tensors = list_tensors(preset, type);
  const Header header = make_header(preset, type, tensors);
  if (std::fwrite(header.bytes().data(), 1, header.bytes().size(), file) != header.bytes().size()) {
    return false;
  }
  Random seeds(seed);
  for (const Tensor& tensor : tensors) {
    if (!write_tensor(tensor, seeds.next(), file)) return false;
  }
  return true;
}

// The entry called `name`, or null.
template <class T, size_t N>
const T* find(const T (&entries)[N], std::string_view name) {
  for (const T& entry : entries) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  static_assert(std::endian::native == std::endian::little, "GGUF is written as it lies in memory");
  const Preset* preset = argc >= 4 ? find(kPresets, argv[2]) : nullptr;
  const Type* type = argc >= 4 ? find(kTypes, argv[3]) : nullptr;
  if (argc > 5 || preset == nullptr || type == nullptr) {
    std::fprintf(stderr,
                 "usage: make_random_gguf OUT.gguf tiny|30m|135m|1b f32|f16|q4_0|q8_0 [SEED]\n"
                 "Writes a Llama model with random weights, for measurements of speed.\n");
    return 2;
  }
  const uint64_t seed = argc == 5 ? std::strtoull(argv[4], nullptr, 10) : 1;
  const std::string part = std::string(argv[1]) + ".part";
  std::FILE* file = std::fopen(part.c_str(), "wb");
  const bool written = file != nullptr && write_model(*preset, *type, seed, file);
  const bool closed = file != nullptr && std::fclose(file) == 0;
  if (!written || !closed || std::rename(part.c_str(), argv[1]) != 0) {
    std::perror(part.c_str());
    return 1;
  }
  std::printf(
      "%s: %s, %s, seed %llu\n", argv[1], preset->name, type->name, (unsigned long long)seed);
  return 0;
}
