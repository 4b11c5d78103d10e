// What all routes share: the model, its names and limits, metrics, and who is being served.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/task_pool.h"
#include "frontend/llm.h"
#include "serve/api_request.h"
#include "serve/metrics.h"
#include "serve/token_text.h"

namespace quire {

struct ServiceConfig {
  std::vector<std::string> model_names;  // the first one stands in answers
  std::string model_root;                // what was loaded
  std::string version;
  bool use_generation_config = true;  // the model's own recommendations
  std::string metrics_prefix = "vllm:";
  std::chrono::seconds stall_timeout{60};
};

// The requests that the engine works for.
class InFlight {
 public:
  using Clock = std::chrono::steady_clock;
  // One of them, until it is destroyed.
  class Ticket {
   public:
    explicit Ticket(InFlight& all);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    Clock::time_point start() const { return start_; }

   private:
    InFlight* all_;
    Clock::time_point start_;
    uint64_t number_;
  };

  int count() const;
  std::optional<Clock::time_point> oldest() const;      // its start
  std::optional<Clock::time_point> busy_since() const;  // there was always one since

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, Clock::time_point> starts_;  // guarded by mutex_
  uint64_t next_ = 0;                             // guarded by mutex_
  Clock::time_point busy_since_;                  // guarded by mutex_
};

struct Service {
  Service(Llm* llm, ServiceConfig config);

  Llm* llm;
  const ServiceConfig config;
  const ApiContext api;
  const TokenTexts texts;
  Metrics metrics;
  InFlight in_flight;
  std::atomic<bool> draining{false};  // no new requests
  TaskPool workers;                   // for what would hold up an I/O thread
};

}  // namespace quire
