// Attention against the machine's limits: decode as read bandwidth of the KV cache, prefill as FMA
// throughput, one layer of a model shape. Prints the best of many runs beside the limits measured
// by the same program: `ops_bench [threads]`.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "base/memory.h"
#include "kernels/backend.h"
#include "kernels/machine_limits.h"
#include "kernels/parallel.h"

namespace quire {
namespace {

struct Shape {
  const char* name;
  int32_t heads, kv_heads, dim;
};

// One layer's KV cache with blocks in random order, and queries, for `seqs` equal sequences.
class Step {
 public:
  Step(const Shape& shape, DType dtype, int32_t seqs, int32_t kv_len, int32_t queries)
      : layout_{dtype, 16, shape.kv_heads, shape.dim} {
    const int32_t blocks = (kv_len + layout_.block_size - 1) / layout_.block_size;
    tables_.resize(static_cast<size_t>(seqs) * blocks);
    for (size_t i = 0; i < tables_.size(); ++i) tables_[i] = static_cast<int32_t>(i);
    std::mt19937_64 random(1);
    std::shuffle(tables_.begin(), tables_.end(), random);
    kv_ = HugeBuffer::allocate(static_cast<int64_t>(tables_.size()) * kv_block_bytes(layout_), "KV")
              .value();
    fill_kv(random);
    const int64_t rows = int64_t{seqs} * queries;
    const int64_t cols = int64_t{shape.heads} * shape.dim;
    q_.resize(static_cast<size_t>(rows * cols));
    for (float& x : q_) x = std::normal_distribution<float>()(random);
    out_.resize(q_.size());
    for (int32_t s = 0; s <= seqs; ++s) query_start_.push_back(s * queries);
    kv_len_.assign(seqs, kv_len);
    args_ = {.q = {q_.data(), rows, cols, cols},
             .num_heads = shape.heads,
             .layout = layout_,
             .kv_layer = kv_.data(),
             .num_seqs = seqs,
             .query_start = query_start_.data(),
             .kv_len = kv_len_.data(),
             .block_tables = tables_.data(),
             .block_table_stride = blocks,
             .scale = 1 / std::sqrt(static_cast<float>(shape.dim)),
             .window = 0,
             .out = {out_.data(), rows, cols, cols}};
  }

  const AttentionArgs& args() const { return args_; }
  int64_t kv_bytes() const { return kv_.size(); }
  // Multiply and add of the visible (query, key) pairs, QK and PV.
  double flops() const {
    double pairs = 0;
    for (int32_t s = 0; s < args_.num_seqs; ++s) {
      const int32_t queries = query_start_[s + 1] - query_start_[s];
      for (int32_t i = 0; i < queries; ++i) pairs += kv_len_[s] - queries + i + 1;
    }
    return pairs * args_.num_heads * layout_.head_dim * 4;
  }

 private:
  void fill_kv(std::mt19937_64& random) {
    const int64_t count = kv_.size() / dtype_info(layout_.dtype).bytes;
    // Any bits with an exponent near 1 will do.
    for (int64_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint16_t>(random());
      if (layout_.dtype == DType::kF32) {
        reinterpret_cast<float*>(kv_.data())[i] = static_cast<float>(bits) / 32768.0F - 1;
      } else {
        const uint16_t base = layout_.dtype == DType::kF16 ? 0x3800 : 0x3f00;
        reinterpret_cast<uint16_t*>(kv_.data())[i] = base | (bits & 0x80ff);
      }
    }
  }

  KvLayout layout_;
  std::vector<int32_t> tables_, query_start_, kv_len_;
  HugeBuffer kv_;
  std::vector<float> q_, out_;
  AttentionArgs args_{};
};

double best_seconds(const std::function<void()>& fn) {
  using Clock = std::chrono::steady_clock;
  std::chrono::duration<double> best(1e9);
  const auto end = Clock::now() + std::chrono::milliseconds(1500);
  for (int i = 0; i < 5 || Clock::now() < end; ++i) {
    const auto start = Clock::now();
    fn();
    best = std::min<std::chrono::duration<double>>(best, Clock::now() - start);
  }
  return best.count();
}

void bench_top_k(const OpTable& ops, const ExecContext& exec, int32_t k) {
  const int64_t vocabulary = 128 * 1024;
  std::mt19937_64 random(1);
  std::vector<float> x(vocabulary);
  for (float& v : x) v = std::normal_distribution<float>()(random);
  std::vector<int32_t> ids(k);
  std::vector<float> values(k);
  const TopKArgs args{{x.data(), 1, vocabulary, vocabulary}, k, ids.data(), values.data()};
  std::printf("top_k %d of %lld: %.3f ms\n",
              k,
              static_cast<long long>(vocabulary),
              best_seconds([&] { ops.top_k(exec, args); }) * 1e3);
}

int run(int threads) {
  const auto selected = select_ops("");
  if (!selected.ok()) {
    std::fprintf(stderr, "%s\n", selected.status().message().c_str());
    return 2;
  }
  const OpTable& ops = **selected;
  ThreadPool pool(threads, /*pin=*/true);
  HugeBuffer scratch = HugeBuffer::allocate(threads * kScratchBytesPerThread, "scratch").value();
  const ExecContext exec{make_parallel(pool), scratch.data()};
  MachineLimits limits = measure_machine_limits(ops, pool).value();
  auto measure_again = [&] {  // the machine is shared: keep the best seen
    const MachineLimits again = measure_machine_limits(ops, pool).value();
    limits.read_gbps = std::max(limits.read_gbps, again.read_gbps);
    limits.fma_gflops = std::max(limits.fma_gflops, again.fma_gflops);
    limits.int8_gops = std::max(limits.int8_gops, again.int8_gops);
  };
  for (int i = 0; i < 5; ++i) measure_again();
  std::printf("%s, %d threads: read %.1f GB/s, FMA %.0f GFLOP/s, int8 %.0f GOP/s\n",
              ops.name,
              threads,
              limits.read_gbps,
              limits.fma_gflops,
              limits.int8_gops);
  const Shape shapes[] = {
      {"1B: 32 heads, 8 KV, D 64", 32, 8, 64},
      {"135M: 9 heads, 3 KV, D 64", 9, 3, 64},
      {"8B: 32 heads, 8 KV, D 128", 32, 8, 128},
      {"MHA: 16 heads, 16 KV, D 64", 16, 16, 64},
  };
  for (const Shape& shape : shapes) {
    std::printf("%s\n", shape.name);
    for (int32_t seqs : {1, 8}) {
      for (DType type : {DType::kF16, DType::kBF16, DType::kF32}) {
        // Several layers' worth, so that no cache keeps the KV between runs.
        std::vector<Step> layers;
        int64_t bytes = 0;
        while (bytes < int64_t{160} << 20) {
          layers.emplace_back(shape, type, seqs, 4096, 1);
          bytes += layers.back().kv_bytes();
        }
        const double seconds = best_seconds([&] {
          for (const Step& layer : layers) ops.attention(exec, layer.args());
        });
        const double gbps = static_cast<double>(bytes) / seconds * 1e-9;
        std::printf("  decode %d x 4096, %-4s: %7.3f ms a layer, %5.1f GB/s, %3.0f %% of read\n",
                    seqs,
                    dtype_info(type).name,
                    seconds * 1e3 / static_cast<double>(layers.size()),
                    gbps,
                    100 * gbps / limits.read_gbps);
      }
    }
    for (int32_t depth : {0, 4096}) {
      Step step(shape, DType::kF16, 1, depth + 512, 512);
      const double seconds = best_seconds([&] { ops.attention(exec, step.args()); });
      const double gflops = step.flops() / seconds * 1e-9;
      std::printf("  prefill 512 after %4d    : %7.3f ms a layer, %5.0f GFLOP/s, %3.0f %% of FMA\n",
                  depth,
                  seconds * 1e3,
                  gflops,
                  100 * gflops / limits.fma_gflops);
    }
  }
  for (int32_t k : {1, 50, 1024}) bench_top_k(ops, exec, k);
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  return quire::run(argc > 1 ? std::max(1, std::atoi(argv[1])) : quire::default_num_threads());
}
