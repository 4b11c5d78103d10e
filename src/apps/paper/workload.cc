#include "apps/paper/workload.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "base/hash.h"

namespace quire {

namespace {

// A small generator of our own: the same requests with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // In (0, 1).
  double uniform() {
    state_ = mix64(state_ + 0x9e3779b97f4a7c15u);
    return (static_cast<double>(state_ >> 11) + 0.5) * 0x1p-53;
  }
  double normal() {  // Box & Muller, 1958
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }
  double exponential(double mean) { return -mean * std::log(uniform()); }

 private:
  uint64_t state_;
};

int draw_length(Random& random, const LengthDistribution& lengths) {
  for (;;) {
    const double value = std::round(std::exp(lengths.mu + lengths.sigma * random.normal()));
    if (value >= lengths.min && value <= lengths.max) return static_cast<int>(value);
  }
}

}  // namespace

std::vector<PaperRequest> draw_requests(
    const PaperWorkload& workload, double rate, double seconds, int max_len, uint64_t seed) {
  Random gaps(hash_combine(seed, 1)), lengths(hash_combine(seed, 2));
  std::vector<PaperRequest> requests;
  for (double now = gaps.exponential(1 / rate); now < seconds; now += gaps.exponential(1 / rate)) {
    PaperRequest request{.arrival = now};
    do {
      request.prompt = draw_length(lengths, workload.input);
      request.output = draw_length(lengths, workload.output);
    } while (request.prompt + request.output > max_len);
    requests.push_back(request);
  }
  return requests;
}

namespace {

// Reads an unsigned number and what follows it: `end` is the character behind, 0 for the line's
// end.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : rest_(line) {}
  bool number(double limit, char end, double* value) {
    const auto [stop, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), *value);
    if (error != std::errc() || !(*value >= 0 && *value <= limit)) return false;
    rest_.remove_prefix(stop - rest_.data());
    if (end == 0) return rest_.empty();
    if (rest_.empty() || rest_[0] != end) return false;
    rest_.remove_prefix(1);
    return true;
  }

 private:
  std::string_view rest_;
};

// "2023-11-16 18:15:46.6805900,374,44"
bool parse_trace_line(std::string_view line, PaperRequest* request) {
  LineReader reader(line);
  double year, month, day, hour, minute, second, prompt, output;
  const bool ok = reader.number(9999, '-', &year) && reader.number(12, '-', &month) &&
                  reader.number(31, ' ', &day) && reader.number(23, ':', &hour) &&
                  reader.number(59, ':', &minute) && reader.number(60, ',', &second) &&
                  reader.number(1e6, ',', &prompt) && reader.number(1e6, 0, &output);
  if (!ok) return false;
  // Traces of some hours: a month's end is not expected inside.
  request->arrival = ((day * 24 + hour) * 60 + minute) * 60 + second;
  request->prompt = static_cast<int>(prompt);
  request->output = static_cast<int>(output);
  return true;
}

}  // namespace

Result<std::vector<PaperRequest>> parse_azure_trace(std::string_view csv, const std::string& name) {
  constexpr std::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
  std::vector<PaperRequest> requests;
  for (int64_t number = 1; !csv.empty(); ++number) {
    const size_t end = std::min(csv.find('\n'), csv.size());
    std::string_view line = csv.substr(0, end);
    csv.remove_prefix(std::min(end + 1, csv.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (number == 1) {
      if (line == kHeader) continue;
      return data_loss(name + " does not begin with " + std::string(kHeader) +
                       ": --trace takes an Azure LLM inference trace of 2023");
    }
    if (line.empty()) continue;
    PaperRequest request;
    if (!parse_trace_line(line, &request)) {
      return data_loss(name + ", line " + std::to_string(number) +
                       ": expected YYYY-MM-DD HH:MM:SS.fraction,tokens,tokens, got '" +
                       std::string(line.substr(0, 80)) + "'");
    }
    requests.push_back(request);
  }
  if (requests.empty()) return data_loss(name + " has no requests");
  const auto earlier = [](const PaperRequest& a, const PaperRequest& b) {
    return a.arrival < b.arrival;
  };
  std::ranges::stable_sort(requests, earlier);
  const double first = requests.front().arrival;
  for (PaperRequest& request : requests) request.arrival -= first;
  return requests;
}

std::vector<PaperRequest> scale_trace(const std::vector<PaperRequest>& trace,
                                      double rate,
                                      double seconds,
                                      int max_len) {
  std::vector<PaperRequest> kept;
  for (const PaperRequest& request : trace) {
    if (request.prompt < 1 || request.output < 1 || request.prompt + request.output > max_len) {
      continue;
    }
    kept.push_back(request);
  }
  if (kept.empty()) return kept;
  const double first = kept.front().arrival, span = kept.back().arrival - first;
  const double stretch = span > 0 ? static_cast<double>(kept.size()) / rate / span : 0;
  std::vector<PaperRequest> scaled;
  for (PaperRequest request : kept) {
    request.arrival = (request.arrival - first) * stretch;
    if (request.arrival < seconds) scaled.push_back(request);
  }
  return scaled;
}

}  // namespace quire
