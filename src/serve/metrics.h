// What GET /metrics says, under vLLM's names and with its buckets, so that its dashboards work.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "frontend/llm.h"

namespace quire {

struct MetricsConfig {
  std::string prefix = "vllm:";
  std::string model_name;
  int max_model_len = 0;
};

// Of one request that has ended. Times in seconds.
struct RequestMetrics {
  RequestStats stats;
  std::vector<std::string> finish_reasons;  // one per answer
  int max_generation_tokens = 0;            // of an answer
  int params_n = 1, params_max_tokens = 0;
  double end_to_end = 0;
};

// Any thread.
class Metrics {
 public:
  explicit Metrics(MetricsConfig config);
  ~Metrics();

  void note_first_token(double seconds_since_arrival);
  // `count` tokens came `seconds` after those before.
  void note_tokens(int count, double seconds);
  void note_ended(const RequestMetrics& request);
  // The Prometheus text format. The engine's own numbers are those of `engine`.
  std::string text(const EngineStats& engine) const;
  // Of all metrics, as they stand in the text.
  std::vector<std::string> names() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
