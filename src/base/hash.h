// Content hashes of integers: the same value on every machine and in every process, so that hashes
// may be stored or sent. Not cryptographic: whoever acts on an equal hash compares the content too.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace quire {

// The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014): every input bit moves every
// output bit, and distinct inputs give distinct outputs.
constexpr uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  x ^= x >> 31;
  return x;
}

// Depends on the order: hash_combine(a, b) != hash_combine(b, a).
constexpr uint64_t hash_combine(uint64_t seed, uint64_t value) {
  return mix64(seed * 3 + 0x9e3779b97f4a7c15u + mix64(value + 0x632be59bd9b4e019u));
}

constexpr uint64_t hash_tokens(uint64_t seed, std::span<const int32_t> tokens) {
  uint64_t h = hash_combine(seed, tokens.size());
  for (int32_t token : tokens) h = mix64((h ^ static_cast<uint32_t>(token)) + 0x9e3779b97f4a7c15u);
  return h;
}

constexpr uint64_t hash_string(std::string_view text) {
  uint64_t h = hash_combine(0, text.size());
  for (char c : text) h = mix64((h ^ static_cast<unsigned char>(c)) + 0x9e3779b97f4a7c15u);
  return h;
}

}  // namespace quire
