// The KV cache as memory: N blocks a layer of opaque bytes (kernels/ops.h, KvLayout). Which block
// belongs to whom is kv/'s business; it knows integers only.
#pragma once

#include <cstdint>

#include "base/memory.h"
#include "base/status.h"
#include "kernels/ops.h"

namespace quire {

class KvCache {
 public:
  // Allocates num_layers * num_blocks * kv_block_bytes(layout). kResourceExhausted names the bytes
  // wanted, the bytes free and the flag that sets them.
  static Result<KvCache> allocate(KvLayout layout,
                                  int num_layers,
                                  int64_t num_blocks,
                                  const char* flag = "--kv-cache-memory-bytes");
  KvCache() = default;

  const KvLayout& layout() const { return layout_; }
  int64_t num_blocks() const { return num_blocks_; }
  int num_layers() const { return num_layers_; }
  unsigned char* layer(int index) {
    return static_cast<unsigned char*>(buffer_.data()) + index * layer_bytes_;
  }
  int64_t* overflows() { return &overflows_; }
  // Block `source` of `from`, which may be this cache, to block `destination`, in every layer. Both
  // have the same layout.
  void copy_block(KvCache& from, int64_t source, int64_t destination);

 private:
  KvLayout layout_{};
  int num_layers_ = 0;
  int64_t num_blocks_ = 0;
  int64_t layer_bytes_ = 0;
  int64_t overflows_ = 0;  // values saturated on their way into an f16 cache
  HugeBuffer buffer_;
};

}  // namespace quire
