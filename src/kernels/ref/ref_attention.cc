#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.h"
#include "base/mutants.h"
#include "kernels/attention.h"
#include "kernels/ref/ref.h"
#include "tensor/half.h"

namespace quire::ref {
namespace {

// Element indices inside a layer of the cache.
int64_t key_index(const KvLayout& l, int64_t slot, int32_t head, int32_t d) {
  const int64_t b = l.block_size;
  const int64_t base = (slot / b * l.num_kv_heads + head) * 2 * l.head_dim * b;
  return base + d * b + slot % b;
}
int64_t value_index(const KvLayout& l, int64_t slot, int32_t head, int32_t d) {
  const int64_t b = l.block_size;
  const int64_t base = (slot / b * l.num_kv_heads + head) * 2 * l.head_dim * b;
  return base + l.head_dim * b + slot % b * l.head_dim + d;
}

void put(DType type, unsigned char* kv, int64_t index, float x, int64_t* overflows) {
  if (type == DType::kF32) {
    std::memcpy(kv + index * 4, &x, 4);
    return;
  }
  constexpr float kLargestF16 = 65504;
  if (type == DType::kF16 && std::fabs(x) > kLargestF16) {
    if (!mutant("kernels_kv_overflow_uncounted")) ++*overflows;
    x = std::copysign(kLargestF16, x);
  }
  const uint16_t half = type == DType::kF16 ? f32_to_f16(x) : f32_to_bf16(x);
  std::memcpy(kv + index * 2, &half, 2);
}

float get(DType type, const unsigned char* kv, int64_t index) {
  if (type == DType::kF32) {
    float x;
    std::memcpy(&x, kv + index * 4, 4);
    return x;
  }
  uint16_t half;
  std::memcpy(&half, kv + index * 2, 2);
  return type == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
}

// One (token, head): out = softmax(scale q k^T) v over positions [first, position].
void attend(const AttentionArgs& a,
            int32_t seq,
            int32_t head,
            int32_t position,
            const float* q,
            float* out) {
  const KvLayout& l = a.layout;
  const int32_t kv_head = head / (a.num_heads / l.num_kv_heads);
  int32_t first = a.window > 0 ? std::max(0, position - a.window + 1) : 0;
  if (mutant("kernels_attention_window") && a.window > 0) first = std::max(0, first - 1);
  const int32_t* table = a.block_tables + int64_t{seq} * a.block_table_stride;
  auto slot = [&](int32_t p) {
    return int64_t{table[p / l.block_size]} * l.block_size + p % l.block_size;
  };
  std::vector<double> weights;
  double largest = -std::numeric_limits<double>::infinity();
  const int32_t end =
      mutant("kernels_attention_not_causal") ? std::min(position + 2, a.kv_len[seq]) : position + 1;
  for (int32_t p = first; p < end; ++p) {
    double score = 0;
    for (int32_t d = 0; d < l.head_dim; ++d) {
      score += double{q[d]} * get(l.dtype, a.kv_layer, key_index(l, slot(p), kv_head, d));
    }
    weights.push_back(score * a.scale);
    largest = std::max(largest, weights.back());
  }
  double total = 0;
  for (double& w : weights) {
    w = std::exp(w - largest);
    total += w;
  }
  for (int32_t d = 0; d < l.head_dim; ++d) {
    double sum = 0;
    for (int32_t p = first; p < end; ++p) {
      sum += weights[p - first] * get(l.dtype, a.kv_layer, value_index(l, slot(p), kv_head, d));
    }
    out[d] = static_cast<float>(sum / total);
  }
}

}  // namespace

void kv_write(const ExecContext&, const KvWriteArgs& a) {
  const KvLayout& l = a.layout;
  for (int64_t t = 0; t < a.k.rows; ++t) {
    if (a.slots[t] < 0) continue;
    for (int32_t head = 0; head < l.num_kv_heads; ++head) {
      for (int32_t d = 0; d < l.head_dim; ++d) {
        const int64_t column = int64_t{head} * l.head_dim + d;
        const float k = a.k.data[t * a.k.stride + column];
        const float v = a.v.data[t * a.v.stride + column];
        put(l.dtype, a.kv_layer, key_index(l, a.slots[t], head, d), k, a.overflows);
        put(l.dtype, a.kv_layer, value_index(l, a.slots[t], head, d), v, a.overflows);
      }
    }
  }
}

void attention(const ExecContext&, const AttentionArgs& a) {
  QUIRE_CHECK(a.num_heads % a.layout.num_kv_heads == 0);
  const int32_t dim = a.layout.head_dim;
  for (int32_t seq = 0; seq < a.num_seqs; ++seq) {
    const int32_t queries = a.query_start[seq + 1] - a.query_start[seq];
    for (int32_t i = 0; i < queries; ++i) {
      const int32_t position = a.kv_len[seq] - queries + i;
      const int64_t t = a.query_start[seq] + i;
      for (int32_t head = 0; head < a.num_heads; ++head) {
        attend(a,
               seq,
               head,
               position,
               a.q.data + t * a.q.stride + int64_t{head} * dim,
               a.out.data + t * a.out.stride + int64_t{head} * dim);
      }
    }
  }
}

namespace {

// A row of StandardAttentionArgs.
struct StandardRow {
  int32_t seq, head, kv_head, first, position;
  int64_t token, row;
};

template <class Fn>
void for_each_row(const AttentionArgs& a, Fn fn) {
  const int32_t group = a.num_heads / a.layout.num_kv_heads;
  const int64_t tokens = a.query_start[a.num_seqs] - a.query_start[0];
  for (int32_t seq = 0; seq < a.num_seqs; ++seq) {
    for (int64_t t = a.query_start[seq]; t < a.query_start[seq + 1]; ++t) {
      const auto position = static_cast<int32_t>(a.kv_len[seq] - a.query_start[seq + 1] + t);
      const int32_t first = a.window > 0 ? std::max(0, position - a.window + 1) : 0;
      for (int32_t head = 0; head < a.num_heads; ++head) {
        const int64_t row = (head / group * tokens + t - a.query_start[0]) * group + head % group;
        fn(StandardRow{seq, head, head / group, first, position, t, row});
      }
    }
  }
}

int64_t slot_of(const AttentionArgs& a, int32_t seq, int32_t p) {
  const int64_t block =
      a.block_tables[int64_t{seq} * a.block_table_stride + p / a.layout.block_size];
  return block * a.layout.block_size + p % a.layout.block_size;
}

}  // namespace

void attention_scores(const ExecContext&, const StandardAttentionArgs& s) {
  const AttentionArgs& a = s.attention;
  const KvLayout& l = a.layout;
  for_each_row(a, [&](const StandardRow& r) {
    const float* q = a.q.data + r.token * a.q.stride + int64_t{r.head} * l.head_dim;
    for (int32_t p = r.first; p <= r.position; ++p) {
      double score = 0;
      for (int32_t d = 0; d < l.head_dim; ++d) {
        const int64_t key = key_index(l, slot_of(a, r.seq, p), r.kv_head, d);
        score += double{q[d]} * get(l.dtype, a.kv_layer, key);
      }
      s.scores.data[r.row * s.scores.stride + p] = static_cast<float>(score * a.scale);
    }
  });
}

void attention_softmax(const ExecContext&, const StandardAttentionArgs& s) {
  for_each_row(s.attention, [&](const StandardRow& r) {
    float* scores = s.scores.data + r.row * s.scores.stride;
    for (int32_t part = 0; part < s.totals.cols / 2; ++part) {
      double m = -std::numeric_limits<double>::infinity(), total = 0;
      const int32_t part_end = std::min(r.position + 1, (part + 1) * kAttentionPartial);
      for (int32_t tile = part * kAttentionPartial; tile < part_end; tile += kAttentionTile) {
        const int32_t begin = std::max(r.first, tile);
        const int32_t end = std::min(part_end, tile + kAttentionTile);
        if (begin >= end) continue;
        const double new_m = std::max(m, double{*std::max_element(scores + begin, scores + end)});
        const double factor = std::exp(m - new_m);
        total *= factor;
        for (int32_t p = begin; p < end; ++p) {
          const double weight = std::exp(scores[p] - new_m);
          total += weight;
          scores[p] = static_cast<float>(weight);
        }
        s.factors.data[r.row * s.factors.stride + tile / kAttentionTile] =
            static_cast<float>(factor);
        m = new_m;
      }
      float* totals = s.totals.data + r.row * s.totals.stride + int64_t{2} * part;
      totals[0] = static_cast<float>(m);
      totals[1] = static_cast<float>(total);
    }
  });
}

void attention_values(const ExecContext&, const StandardAttentionArgs& s) {
  const AttentionArgs& a = s.attention;
  const KvLayout& l = a.layout;
  for_each_row(a, [&](const StandardRow& r) {
    const float* weights = s.scores.data + r.row * s.scores.stride;
    const float* factors = s.factors.data + r.row * s.factors.stride;
    const float* totals = s.totals.data + r.row * s.totals.stride;
    const int32_t parts = r.position / kAttentionPartial + 1;
    double largest = -std::numeric_limits<double>::infinity(), total = 0;
    for (int32_t part = 0; part < parts; ++part) {
      if (totals[2 * part + 1] > 0) largest = std::max(largest, double{totals[2 * part]});
    }
    for (int32_t part = 0; part < parts; ++part) {
      if (totals[2 * part + 1] == 0) continue;
      total += totals[2 * part + 1] * std::exp(totals[2 * part] - largest);
    }
    for (int32_t d = 0; d < l.head_dim; ++d) {
      double sum = 0, partial = 0;
      for (int32_t p = r.first; p <= r.position; ++p) {
        if (p == r.first || p % kAttentionTile == 0) {
          partial *= p % kAttentionPartial == 0 ? 0 : factors[p / kAttentionTile];
        }
        const int64_t value = value_index(l, slot_of(a, r.seq, p), r.kv_head, d);
        partial += double{weights[p]} * get(l.dtype, a.kv_layer, value);
        if (p == r.position || (p + 1) % kAttentionPartial == 0) {
          sum += partial * std::exp(totals[p / kAttentionPartial * 2] - largest);
        }
      }
      const int64_t column = int64_t{r.head} * l.head_dim + d;
      a.out.data[r.token * a.out.stride + column] = static_cast<float>(sum / total);
    }
  });
}

}  // namespace quire::ref
