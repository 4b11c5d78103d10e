#include "apps/paper/comparison.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace quire {
namespace {

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// The largest k for which the k-th smallest and the k-th largest of n values enclose the median
// with a probability of 95 %: P(fewer than k of n fair coins show heads) <= 2.5 %.
int enclosing_rank(int n) {
  double probability = std::pow(0.5, n);  // of exactly 0 heads
  double below = 0;
  int k = 0;
  while (below + probability <= 0.025) {
    below += probability;
    probability *= static_cast<double>(n - k) / (k + 1);
    ++k;
  }
  return std::max(k, 1);
}

}  // namespace

PairedTimes paired_times(const std::vector<double>& first, const std::vector<double>& second) {
  QUIRE_CHECK(!first.empty() && first.size() == second.size());
  std::vector<double> ratios;
  for (size_t i = 0; i < first.size(); ++i) ratios.push_back(second[i] / first[i]);
  std::ranges::sort(ratios);
  const size_t n = ratios.size(), k = enclosing_rank(static_cast<int>(n));
  return {static_cast<int>(n),
          median(first),
          median(second),
          median(ratios),
          ratios[k - 1],
          ratios[n - k]};
}

Result<PairedTimes> compare_in_turns(int rounds,
                                     const std::function<Result<double>()>& first,
                                     const std::function<Result<double>()>& second) {
  std::vector<double> times[2];
  const std::function<Result<double>()>* const ways[2] = {&first, &second};
  for (int round = -1; round < rounds; ++round) {
    for (int turn = 0; turn < 2; ++turn) {
      const int way = (round + turn) & 1;
      QUIRE_ASSIGN_OR_RETURN(const double seconds, (*ways[way])());
      if (round >= 0) times[way].push_back(seconds);
    }
  }
  return paired_times(times[0], times[1]);
}

Json to_json(const PairedTimes& times) {
  return {{"rounds", times.rounds},
          {"first_seconds", times.first},
          {"second_seconds", times.second},
          {"ratio", times.ratio},
          {"ratio_low", times.ratio_low},
          {"ratio_high", times.ratio_high}};
}

}  // namespace quire
