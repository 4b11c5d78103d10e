#include "serve/service.h"

#include <utility>

namespace quire {

namespace {

constexpr size_t kMostTasksQueued = 1024;

ApiContext context_of(const Llm& llm, const ServiceConfig& config) {
  ApiContext context;
  context.model_names = config.model_names;
  context.max_model_len = llm.engine_config().max_model_len;
  context.max_num_seqs = llm.engine_config().max_num_seqs;
  context.vocab_size = llm.model_config().vocab_size;
  context.has_chat_template = llm.has_chat_template();
  // Neither the request nor the model says how long: until the context is full.
  SamplingParams params;
  params.max_tokens = context.max_model_len;
  context.defaults = config.use_generation_config ? llm.recommended_over(params) : params;
  return context;
}

}  // namespace

InFlight::Ticket::Ticket(InFlight& all) : all_(&all), start_(Clock::now()) {
  std::lock_guard lock(all.mutex_);
  if (all.starts_.empty()) all.busy_since_ = start_;
  number_ = all.next_++;
  all.starts_.emplace(number_, start_);
}

InFlight::Ticket::~Ticket() {
  std::lock_guard lock(all_->mutex_);
  all_->starts_.erase(number_);
}

int InFlight::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(starts_.size());
}

std::optional<InFlight::Clock::time_point> InFlight::oldest() const {
  std::lock_guard lock(mutex_);
  if (starts_.empty()) return std::nullopt;
  return starts_.begin()->second;
}

std::optional<InFlight::Clock::time_point> InFlight::busy_since() const {
  std::lock_guard lock(mutex_);
  if (starts_.empty()) return std::nullopt;
  return busy_since_;
}

Service::Service(Llm* model, ServiceConfig c)
    : llm(model),
      config(std::move(c)),
      api(context_of(*model, config)),
      texts(model->tokenizer()),
      metrics({.prefix = config.metrics_prefix,
               .model_name = config.model_names.front(),
               .max_model_len = api.max_model_len}),
      workers(1, kMostTasksQueued) {}

}  // namespace quire
