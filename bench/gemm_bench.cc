// `linear` on the shapes of real models: operations and bytes a second, beside this machine's own
// limits measured in the same loop. All figures are the best of many short slices, interleaved, as
// others may share the machine:  gemm_bench [threads] [seconds a case] [filter]
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/pack.h"
#include "kernels/parallel.h"
#include "tensor/half.h"

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

HugeBuffer allocate(int64_t bytes) { return HugeBuffer::allocate(bytes, "benchmark").value(); }

// Weights far larger than the caches: copies of one packed matrix, used in turn.
class Weights {
 public:
  Weights(DType type, int64_t n, int64_t k, int64_t total)
      : type_(type), n_(n), k_(k), bytes_(packed_bytes(type, n, k)) {
    copies_ = std::max<int64_t>(1, total / bytes_);
    data_ = allocate(bytes_ * copies_);
    const DTypeInfo& info = dtype_info(type);
    const int64_t row_bytes = k / info.elems * info.bytes;
    std::vector<unsigned char> rows(32 * row_bytes);
    std::mt19937 rng(1);
    for (auto& b : rows) b = static_cast<unsigned char>(rng());
    const uint16_t scale = f32_to_f16(0.01f);  // everywhere a scale may stand; no NaN or denormal
    for (int64_t at = 0; at < 32 * row_bytes; at += info.bytes) {
      unsigned char* block = rows.data() + at;
      if (info.elems == 1) {
        const float value = (static_cast<int>(rng() % 2001) - 1000) * 1e-4f;
        const uint16_t half = type == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
        std::memcpy(
            block, type == DType::kF32 ? static_cast<const void*>(&value) : &half, info.bytes);
      } else if (type == DType::kQ6_K) {
        std::memcpy(block + 208, &scale, 2);
      } else {
        std::memcpy(block, &scale, 2);
        if (type != DType::kQ4_0 && type != DType::kQ5_0 && type != DType::kQ8_0) {
          std::memcpy(block + 2, &scale, 2);
        }
      }
    }
    for (int64_t p = 0; p < (n + 31) / 32; ++p) {
      pack_panel(
          type, k, rows.data(), row_bytes, std::min<int64_t>(32, n - 32 * p), p, data_.data());
    }
    for (int64_t c = 1; c < copies_; ++c) {
      std::memcpy(data_.data() + c * bytes_, data_.data(), bytes_);
    }
  }
  int64_t bytes() const { return bytes_; }
  PackedMatrix next() {
    turn_ = (turn_ + 1) % copies_;
    return {type_, n_, k_, data_.data() + turn_ * bytes_};
  }

 private:
  DType type_;
  int64_t n_, k_, bytes_, copies_, turn_ = 0;
  HugeBuffer data_;
};

struct Case {
  const char* model;
  DType type;
  int64_t n, k, m;
  ActivationType activations;
};

// One op on random rows; time of one call.
class Runner {
 public:
  Runner(const OpTable& ops, ThreadPool& pool, const Case& c, Weights& weights)
      : ops_(ops), pool_(pool), case_(c), weights_(weights) {
    scratch_ = allocate(pool.num_threads() * kScratchBytesPerThread);
    x_ = allocate(c.m * c.k * 4);
    y_ = allocate(c.m * c.n * 4);
    prepared_ = allocate(activation_bytes(c.activations, c.m, c.k));
    std::mt19937 rng(2);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < c.m * c.k; ++i) reinterpret_cast<float*>(x_.data())[i] = normal(rng);
    quantize_seconds_ = time([&] {
      ops_.quantize(context(), {{reinterpret_cast<float*>(x_.data()), c.m, c.k, c.k}, rows()});
    });
  }
  double linear_seconds() {
    return time([&] {
      const PackedMatrix w = weights_.next();
      ops_.linear(context(),
                  {rows(),
                   &w,
                   1,
                   nullptr,
                   false,
                   {reinterpret_cast<float*>(y_.data()), case_.m, case_.n, case_.n}});
    });
  }
  double quantize_seconds() {
    return time([&] {
      ops_.quantize(context(),
                    {{reinterpret_cast<float*>(x_.data()), case_.m, case_.k, case_.k}, rows()});
    });
  }

 private:
  template <class F>
  double time(F f) {
    const auto start = Clock::now();
    f();
    return seconds_since(start);
  }
  Activations rows() { return {case_.activations, case_.m, case_.k, prepared_.data()}; }
  ExecContext context() { return {make_parallel(pool_), scratch_.data()}; }

  const OpTable& ops_;
  ThreadPool& pool_;
  Case case_;
  Weights& weights_;
  HugeBuffer scratch_, x_, y_, prepared_;
  double quantize_seconds_;
};

// ---- Limits

struct ReadJob {
  const unsigned char* data;
  int64_t bytes;
};

void read_body(void* arg, int32_t thread, int32_t threads) {
  const ReadJob& job = *static_cast<const ReadJob*>(arg);
  const int64_t share = job.bytes / threads / 1024 * 1024;
  const auto* p = reinterpret_cast<const uint64_t*>(job.data + thread * share);
  uint64_t sum[4] = {};
  constexpr int64_t kAhead = 512;
  for (int64_t i = 0; i < share / 8; i += 32) {
    for (int64_t line = 0; line < 32; line += 8) __builtin_prefetch(p + i + line + kAhead);
    for (int64_t j = 0; j < 32; ++j) sum[j % 4] += p[i + j];
  }
  volatile uint64_t sink = sum[0] + sum[1] + sum[2] + sum[3];
  (void)sink;
}

double read_gbps(ThreadPool& pool, const HugeBuffer& buffer) {
  ReadJob job = {buffer.data(), buffer.size()};
  const auto start = Clock::now();
  pool.run(read_body, &job);
  return static_cast<double>(buffer.size()) / seconds_since(start) * 1e-9;
}

#if defined(__x86_64__)
// vpmaddwd and vpaddd on registers: the two operations that the AVX2 kernel needs for 16 products.
__attribute__((target("avx2"))) void madd_body(void*, int32_t, int32_t) {
  __m256i sum[8], a = _mm256_set1_epi16(3);
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int i = 0; i < 100000; ++i) {
    for (auto& s : sum) {
      __asm__("" : "+x"(a));
      s = _mm256_add_epi32(s, _mm256_madd_epi16(a, a));
    }
  }
  __m256i all = sum[0];
  for (const auto& s : sum) all = _mm256_xor_si256(all, s);
  volatile int32_t sink = _mm256_extract_epi32(all, 0);
  (void)sink;
}
double madd_gops(ThreadPool& pool) {
  const auto start = Clock::now();
  pool.run(madd_body, nullptr);
  return pool.num_threads() * 100000.0 * 8 * 32 / seconds_since(start) * 1e-9;
}
#else
double madd_gops(ThreadPool&) { return 0; }
#endif

const char* name_of(ActivationType type) {
  return type == ActivationType::kF32 ? "f32" : (type == ActivationType::kInt16 ? "int16" : "int8");
}

std::vector<Case> cases() {
  std::vector<Case> all;
  constexpr auto k16 = ActivationType::kInt16, k8 = ActivationType::kInt8;
  const int64_t rows[] = {1, 2, 4, 8, 16, 32, 512};
  for (const int64_t m : rows) all.push_back({"1B gate", DType::kQ4_0, 8192, 2048, m, k16});
  for (const int64_t m : {1, 8, 32, 512}) {
    all.push_back({"1B gate", DType::kQ4_0, 8192, 2048, m, k8});
  }
  for (const DType type :
       {DType::kQ4_1, DType::kQ5_0, DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    for (const int64_t m : {1, 4, 32, 512}) all.push_back({"1B gate", type, 8192, 2048, m, k16});
  }
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t m : {1, 4, 32, 256}) {
      all.push_back({"1B gate", type, 8192, 2048, m, ActivationType::kF32});
    }
  }
  const int64_t smol[][2] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {49152, 576}};
  for (const auto& shape : smol) {
    for (const int64_t m : {1, 8, 32, 512}) {
      if (shape[0] == 49152 && m == 512) continue;  // lm_head sees few rows
      all.push_back({"SmolLM2", DType::kQ4_1, shape[0], shape[1], m, k16});
    }
  }
  return all;
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const double budget = argc > 2 ? std::atof(argv[2]) : 1.0;
  const std::string filter = argc > 3 ? argv[3] : "";
  const OpTable& ops = *select_ops("").value();
  ThreadPool pool(threads);
  const HugeBuffer big = allocate(int64_t{256} << 20);
  std::memset(big.data(), 1, big.size());
  std::printf(
      "level %s, %d threads; best of slices over %.1f s a case; limits from the same slices\n",
      ops.name,
      threads,
      budget);
  std::printf("%-8s %-5s %6s %5s %4s %-5s | %8s %7s %6s | %7s %6s | %8s\n",
              "shapes",
              "type",
              "N",
              "K",
              "M",
              "act",
              "ms",
              "GOP/s",
              "of max",
              "GB/s",
              "of max",
              "quant ms");
  for (const Case& c : cases()) {
    const std::string name = std::string(c.model) + " " + dtype_info(c.type).name + " " +
                             std::to_string(c.n) + "x" + std::to_string(c.k) + " m" +
                             std::to_string(c.m) + " " + name_of(c.activations);
    if (!filter.empty() && name.find(filter) == std::string::npos) continue;
    Weights weights(c.type, c.n, c.k, int64_t{200} << 20);
    Runner runner(ops, pool, c, weights);
    double best = 1e9, quantize = 1e9, read = 0, madd = 0;
    const auto start = Clock::now();
    do {
      for (int i = 0; i < (c.m > 64 ? 1 : 8); ++i) best = std::min(best, runner.linear_seconds());
      quantize = std::min(quantize, runner.quantize_seconds());
      read = std::max(read, read_gbps(pool, big));
      madd = std::max(madd, madd_gops(pool));
    } while (seconds_since(start) < budget);
    const double gops = 2e-9 * static_cast<double>(c.m * c.n * c.k) / best;
    const double gbps = 1e-9 * static_cast<double>(weights.bytes()) / best;
    std::printf("%-8s %-5s %6ld %5ld %4ld %-5s | %8.3f %7.1f %5.0f%% | %7.2f %5.0f%% | %8.3f\n",
                c.model,
                dtype_info(c.type).name,
                c.n,
                c.k,
                c.m,
                name_of(c.activations),
                best * 1e3,
                gops,
                100 * gops / madd,
                gbps,
                100 * gbps / read,
                quantize * 1e3);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::run(argc, argv); }
