#include "model/kv_cache.h"

#include <cstring>
#include <utility>

#include "kernels/backend.h"

namespace quire {

Result<KvCache> KvCache::allocate(KvLayout layout,
                                  int num_layers,
                                  int64_t num_blocks,
                                  const char* flag) {
  QUIRE_CHECK(num_layers > 0);
  if (num_blocks < 1) {
    return invalid_argument("the KV cache has " + std::to_string(num_blocks) +
                            " blocks; it needs at least 1 (raise " + flag + ")");
  }
  KvCache cache;
  cache.layout_ = layout;
  cache.num_layers_ = num_layers;
  cache.num_blocks_ = num_blocks;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(num_blocks, kv_block_bytes(layout), &cache.layer_bytes_) ||
      __builtin_mul_overflow(cache.layer_bytes_, static_cast<int64_t>(num_layers), &bytes)) {
    return resource_exhausted("a KV cache of " + std::to_string(num_blocks) +
                              " blocks is larger than any memory; lower " + flag);
  }
  QUIRE_ASSIGN_OR_RETURN(
      cache.buffer_, HugeBuffer::allocate(bytes, std::string("the KV cache (lower ") + flag + ")"));
  return cache;
}

void KvCache::copy_block(KvCache& from, int64_t source, int64_t destination) {
  const int64_t bytes = kv_block_bytes(layout_);
  for (int i = 0; i < num_layers_; ++i) {
    std::memcpy(
        layer(i) + destination * bytes, from.layer(i) + source * bytes, static_cast<size_t>(bytes));
  }
}

}  // namespace quire
