// Two ways to do the same work, measured on this machine in turns.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "frontend/json.h"

namespace quire {

// What the figures that compare two ways are given; there is nothing in them to simulate.
struct ComparisonSettings {
  std::string model;  // as for quire run
  int num_threads = 0;
  int rounds = 21;  // each measures both ways
  uint64_t seed = 1;
};

// Times of two ways: medians, and the median over the rounds of second / first with the interval
// that holds the true median with a probability of at least 95 %.
struct PairedTimes {
  int rounds = 0;
  double first = 0, second = 0;  // seconds
  double ratio = 0, ratio_low = 0, ratio_high = 0;
};

// Of the measured seconds of each round; the same number of both, at least one. The interval is
// given by order statistics (the sign test), which needs no distribution; with fewer than 6 rounds
// it is the whole range and its probability lower.
PairedTimes paired_times(const std::vector<double>& first, const std::vector<double>& second);

// Runs both once unmeasured, then both in every round, in turns first and second: a machine that
// gets slower meanwhile slows both. Each returns its seconds.
Result<PairedTimes> compare_in_turns(int rounds,
                                     const std::function<Result<double>()>& first,
                                     const std::function<Result<double>()>& second);

Json to_json(const PairedTimes& times);

}  // namespace quire
