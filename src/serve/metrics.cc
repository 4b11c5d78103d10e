#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <set>

namespace quire {

namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstTokenSeconds = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                    1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kTokenSeconds = {
    .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const Buckets kRequestSeconds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kAnswers = {1, 2, 5, 10, 20};

// 1, 2, 5, 10, 20, 50 ... up to `most`.
Buckets one_two_five(double most) {
  Buckets buckets;
  for (double power = 1; buckets.empty() || power <= most; power *= 10) {
    for (const double step : {1, 2, 5}) {
      if (step * power <= std::max(1.0, most)) buckets.push_back(step * power);
    }
  }
  return buckets;
}

prometheus::MetricFamily family_of(const std::string& name,
                                   const std::string& help,
                                   prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

}  // namespace

struct Metrics::Impl {
  using Labels = prometheus::Labels;

  explicit Impl(const MetricsConfig& c)
      : config(c), labels{{"model_name", c.model_name}, {"engine", "0"}} {}

  prometheus::Histogram& histogram(const std::string& name,
                                   const std::string& help,
                                   const Buckets& buckets) {
    return prometheus::BuildHistogram()
        .Name(config.prefix + name)
        .Help(help)
        .Register(registry)
        .Add(labels, buckets);
  }
  Buckets tokens() const { return one_two_five(config.max_model_len); }

  const MetricsConfig config;
  const Labels labels;
  prometheus::Registry registry;

  prometheus::Histogram& first_token = histogram("time_to_first_token_seconds",
                                                 "From a request's arrival to its first token.",
                                                 kFirstTokenSeconds);
  prometheus::Histogram& inter_token =
      histogram("inter_token_latency_seconds", "Between two tokens of an answer.", kTokenSeconds);
  prometheus::Histogram& per_token = histogram("request_time_per_output_token_seconds",
                                               "A request's mean time per token after the first.",
                                               kTokenSeconds);
  prometheus::Histogram& end_to_end = histogram(
      "e2e_request_latency_seconds", "From a request's arrival to its end.", kRequestSeconds);
  prometheus::Histogram& queue = histogram(
      "request_queue_time_seconds", "From the engine's inbox to the first step.", kRequestSeconds);
  prometheus::Histogram& inference = histogram(
      "request_inference_time_seconds", "From the first step to the end.", kRequestSeconds);
  prometheus::Histogram& prefill = histogram(
      "request_prefill_time_seconds", "From the first step to the first token.", kRequestSeconds);
  prometheus::Histogram& decode =
      histogram("request_decode_time_seconds", "From the first token to the end.", kRequestSeconds);
  prometheus::Histogram& prompt_tokens =
      histogram("request_prompt_tokens", "Tokens of a prompt.", tokens());
  prometheus::Histogram& generation_tokens =
      histogram("request_generation_tokens", "Tokens generated for a request.", tokens());
  prometheus::Histogram& max_generation_tokens = histogram(
      "request_max_num_generation_tokens", "Tokens of a request's longest answer.", tokens());
  prometheus::Histogram& params_max_tokens =
      histogram("request_params_max_tokens", "The max_tokens of a request.", tokens());
  prometheus::Histogram& kv_computed = histogram(
      "request_prefill_kv_computed_tokens", "Prompt tokens that were not cached.", tokens());
  prometheus::Histogram& params_n = histogram("request_params_n", "The n of a request.", kAnswers);
  prometheus::Family<prometheus::Counter>& success =
      prometheus::BuildCounter()
          .Name(config.prefix + "request_success_total")
          .Help("Answers by what ended them.")
          .Register(registry);
  prometheus::Family<prometheus::Counter>& by_source =
      prometheus::BuildCounter()
          .Name(config.prefix + "prompt_tokens_by_source_total")
          .Help("Prompt tokens of ended requests, by where their keys and values came from.")
          .Register(registry);

  prometheus::Counter& success_of(const std::string& reason) {
    Labels with_reason = labels;
    with_reason["finished_reason"] = reason;
    return success.Add(with_reason);
  }
  prometheus::Counter& prompt_tokens_from(const std::string& source) {
    Labels with_source = labels;
    with_source["source"] = source;
    return by_source.Add(with_source);
  }

  std::vector<prometheus::MetricFamily> collect(const EngineStats& engine) const;
};

// The engine's numbers, as they are now.
std::vector<prometheus::MetricFamily> Metrics::Impl::collect(const EngineStats& engine) const {
  std::vector<prometheus::MetricFamily> all;
  const auto add = [&](const char* name, const char* help, bool counts, double value) {
    auto family =
        family_of(config.prefix + name,
                  help,
                  counts ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge);
    prometheus::ClientMetric metric;
    for (const auto& [key, text] : labels) metric.label.push_back({key, text});
    (counts ? metric.counter.value : metric.gauge.value) = value;
    family.metric.push_back(std::move(metric));
    all.push_back(std::move(family));
  };
  const double blocks = static_cast<double>(std::max<int64_t>(1, engine.num_blocks));
  add("num_requests_running", "Sequences in the current batch.", false, engine.num_running);
  add("num_requests_waiting", "Sequences waiting for a place.", false, engine.num_waiting);
  add("kv_cache_usage_perc",
      "Share of KV blocks in use, 0 to 1.",
      false,
      engine.num_used_blocks / blocks);
  add("num_preemptions_total",
      "Times that a sequence gave up its KV blocks.",
      true,
      engine.num_preemptions);
  add("prefix_cache_queries_total",
      "Prompt tokens looked up in the prefix cache.",
      true,
      engine.prefix_cache_queries);
  add("prefix_cache_hits_total",
      "Prompt tokens found in the prefix cache.",
      true,
      engine.prefix_cache_hits);
  add("prompt_tokens_total", "Prompt tokens processed.", true, engine.num_prompt_tokens);
  add("prompt_tokens_cached_total",
      "Prompt tokens that came from the prefix cache.",
      true,
      engine.prefix_cache_hits);
  add("generation_tokens_total", "Tokens generated.", true, engine.num_generated_tokens);
  auto more = registry.Collect();
  std::ranges::move(more, std::back_inserter(all));
  return all;
}

Metrics::Metrics(MetricsConfig config) : impl_(std::make_unique<Impl>(config)) {
  // A counter that has not counted yet is 0, not absent.
  for (const char* reason : {"stop", "length", "abort", "error"}) impl_->success_of(reason);
  for (const char* source : {"local_compute", "local_cache_hit"}) impl_->prompt_tokens_from(source);
}
Metrics::~Metrics() = default;

void Metrics::note_first_token(double seconds) { impl_->first_token.Observe(seconds); }

void Metrics::note_tokens(int count, double seconds) {
  for (int i = 0; i < count; ++i) impl_->inter_token.Observe(seconds / count);
}

void Metrics::note_ended(const RequestMetrics& r) {
  for (const std::string& reason : r.finish_reasons) impl_->success_of(reason).Increment();
  const RequestStats& s = r.stats;
  impl_->end_to_end.Observe(r.end_to_end);
  impl_->params_n.Observe(r.params_n);
  impl_->params_max_tokens.Observe(r.params_max_tokens);
  impl_->prompt_tokens.Observe(s.num_prompt_tokens);
  impl_->generation_tokens.Observe(s.num_generated_tokens);
  impl_->max_generation_tokens.Observe(r.max_generation_tokens);
  if (s.first_token_seconds == 0) return;  // it ended before the engine had computed it
  const int computed = s.num_prompt_tokens - s.num_cached_tokens;
  impl_->kv_computed.Observe(computed);
  impl_->prompt_tokens_from("local_compute").Increment(computed);
  impl_->prompt_tokens_from("local_cache_hit").Increment(s.num_cached_tokens);
  impl_->queue.Observe(s.scheduled_seconds);
  impl_->inference.Observe(s.finish_seconds - s.scheduled_seconds);
  impl_->prefill.Observe(s.first_token_seconds - s.scheduled_seconds);
  impl_->decode.Observe(s.finish_seconds - s.first_token_seconds);
  if (r.max_generation_tokens > 1) {
    impl_->per_token.Observe((s.finish_seconds - s.first_token_seconds) /
                             (r.max_generation_tokens - 1));
  }
}

std::string Metrics::text(const EngineStats& engine) const {
  return prometheus::TextSerializer().Serialize(impl_->collect(engine));
}

std::vector<std::string> Metrics::names() const {
  std::set<std::string> names;
  for (const prometheus::MetricFamily& family : impl_->collect({})) names.insert(family.name);
  return {names.begin(), names.end()};
}

}  // namespace quire
