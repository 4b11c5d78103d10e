// base/ThreadPool as the kernels' Parallel.
#pragma once

#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace quire {

inline Parallel make_parallel(ThreadPool& pool) {
  return {&pool, pool.num_threads(), [](void* p, void (*body)(void*, int32_t, int32_t), void* arg) {
            static_cast<ThreadPool*>(p)->run(body, arg);
          }};
}

}  // namespace quire
