#include "apps/paper/run.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "engine/kv_use.h"

namespace quire {

PaperSystem paged_system() { return {"paged", "quire (paged)"}; }
PaperSystem orca_oracle_system() { return {"orca-oracle", "Orca (Oracle)", KvPolicy::kOracle}; }

std::vector<PaperSystem> paper_systems(const CostModel& cost) {
  const int block_size = static_cast<int>(cost.block_size);
  const int blocks = num_blocks_for(static_cast<int>(cost.max_model_len), block_size);
  // As many as memory holds of the maximum length.
  const int fits = BuddyAllocator(cost.num_blocks(block_size)).capacity_for(blocks);
  return {{"faster-transformer", "FasterTransformer", KvPolicy::kMax, Batching::kDynamic, fits},
          {"hugging-face", "Hugging Face", KvPolicy::kGrow, Batching::kStatic, fits},
          {"orca-max", "Orca (Max)", KvPolicy::kMax},
          {"orca-pow2", "Orca (Pow2)", KvPolicy::kPow2},
          orca_oracle_system(),
          paged_system()};
}

namespace {

class ModelTimeRun {
 public:
  ModelTimeRun(const CostModel& cost, const PaperRun& run, std::span<const PaperRequest> requests)
      : cost_(cost),
        run_(run),
        requests_(requests),
        random_(mix64(run.seed)),
        scheduler_(scheduler_config(cost, run), cost.num_blocks(run.block_size), run.block_size) {}

  PaperOutcome run();

 private:
  static SchedulerConfig scheduler_config(const CostModel& cost, const PaperRun& run);
  void add_arrivals();
  void step();
  void list_candidates(int count, std::vector<BeamCandidate>* candidates);
  void commit();
  void measure(double seconds);
  void measure_sharing(double seconds);
  bool is_request_level() const { return run_.system.batching != Batching::kContinuous; }

  const CostModel& cost_;
  const PaperRun& run_;
  const std::span<const PaperRequest> requests_;
  uint64_t random_;
  Scheduler scheduler_;
  double now_ = 0;
  size_t num_arrived_ = 0;
  std::vector<size_t> request_of_;  // by order of arrival at the scheduler
  std::vector<int> answers_left_;   // of each of those
  std::vector<size_t> finished_;    // in this batch, answered when it ends
  ScheduledBatch batch_;
  StepResult result_;
  std::vector<CommittedSequence> committed_;
  PaperOutcome outcome_;
  double latency_sum_ = 0, running_seconds_ = 0, held_ = 0, used_ = 0;
};

SchedulerConfig ModelTimeRun::scheduler_config(const CostModel& cost, const PaperRun& run) {
  SchedulerConfig config;
  config.max_num_seqs = static_cast<int>(cost.max_num_seqs);
  config.max_num_batched_tokens = static_cast<int>(cost.max_num_batched_tokens);
  config.max_model_len = static_cast<int>(cost.max_model_len);
  config.max_logit_rows = config.max_num_seqs + 1;
  config.enable_prefix_caching = run.prefix_caching;
  config.kv_policy = run.system.kv_policy;
  config.batching = run.system.batching;
  config.batch_size = run.system.batch_size;
  if (run.swaps) {
    config.preemption_mode = PreemptionMode::kSwap;
    config.num_host_blocks = cost.num_blocks(run.block_size);
  }
  return config;
}

// Token values matter to the prefix cache alone: prompts differ behind what they share.
void ModelTimeRun::add_arrivals() {
  while (num_arrived_ < requests_.size() && requests_[num_arrived_].arrival <= now_) {
    const PaperRequest& request = requests_[num_arrived_];
    SequenceSpec spec;
    spec.prompt.resize(request.prompt);
    std::iota(spec.prompt.begin(), spec.prompt.end(), 0);
    const int own = static_cast<int>(num_arrived_) + 1;
    for (int i = request.shared_prefix; i < request.prompt; ++i) spec.prompt[i] = own;
    spec.sampling.n = request.n;
    spec.sampling.beam_width = request.beam_width;
    spec.sampling.max_tokens = request.output;
    spec.sampling.ignore_eos = true;
    spec.sampling.seed = 0;
    spec.submit_time = request.arrival;
    if (scheduler_.add(std::move(spec)).ok()) {
      request_of_.push_back(num_arrived_);
      answers_left_.push_back(request.n);
    }
    ++num_arrived_;
  }
}

// A stand-in for the model: log-probabilities that fall off by exponential gaps, and at certain
// steps one token that leaves the others far behind. Only ratios of gaps decide who goes on.
void ModelTimeRun::list_candidates(int count, std::vector<BeamCandidate>* candidates) {
  constexpr double kFar = 1000;
  const auto uniform = [&] {
    random_ = mix64(random_ + 0x9e3779b97f4a7c15u);
    return (static_cast<double>(random_ >> 11) + 0.5) * 0x1p-53;
  };
  const bool is_certain = uniform() < run_.beam_certainty;
  double logprob = is_certain ? 0 : std::log(uniform());
  for (int i = 0; i < count; ++i) {
    candidates->push_back({i, logprob});
    logprob -= is_certain ? kFar : -std::log(uniform());
  }
}

void ModelTimeRun::commit() {
  result_.clear(static_cast<int>(batch_.sequences.size()));
  for (size_t i = 0; i < batch_.sequences.size(); ++i) {
    const ScheduledSequence& entry = batch_.sequences[i];
    const int beam_width = scheduler_.sequence(entry.id).sampling.beam_width;
    if (entry.samples && beam_width > 0) {
      list_candidates(beam_width, &result_.beam_candidates[i]);
    } else if (entry.samples) {
      result_.tokens.push_back(0);
    }
    result_.token_start[i + 1] = static_cast<int32_t>(result_.tokens.size());
  }
  scheduler_.commit(batch_, result_, &committed_);
  for (const CommittedSequence& done : committed_) {
    if (done.finish_reason == FinishReason::kNone) continue;
    const uint64_t arrival = scheduler_.sequence(done.id).arrival;
    if (--answers_left_[arrival] == 0) finished_.push_back(request_of_[arrival]);
  }
  if (is_request_level() && scheduler_.num_running() > 0) return;
  for (const size_t index : finished_) {
    const PaperRequest& request = requests_[index];
    latency_sum_ += (now_ - request.arrival) / request.output;
    ++outcome_.num_finished;
  }
  finished_.clear();
}

void ModelTimeRun::measure_sharing(double seconds) {
  int64_t held = 0;
  for (const SequenceId id : scheduler_.running()) held += scheduler_.sequence(id).table.size();
  held_ += seconds * static_cast<double>(held);
  used_ += seconds * scheduler_.pool().num_used();
}

// What lasts until the next step.
void ModelTimeRun::measure(double seconds) {
  int num_requests = 0;  // the members of a group are neighbours
  std::optional<uint64_t> before;
  for (const SequenceId id : scheduler_.running()) {
    const uint64_t arrival = scheduler_.sequence(id).arrival;
    num_requests += arrival != before;
    before = arrival;
  }
  running_seconds_ += seconds * num_requests;
  if (!run_.measures_memory) return;
  measure_sharing(seconds);
  if (!scheduler_.head_waits_for_memory()) return;
  const KvUse use = measure_kv_use(scheduler_);
  const double share = seconds / static_cast<double>(use.total);
  KvShares& kv = outcome_.kv;
  kv.seconds += seconds;
  kv.tokens += share * use.tokens;
  kv.reserved += share * use.reserved;
  kv.internal += share * use.internal;
  kv.external += share * use.external();
  kv.ended += share * use.ended;
  kv.free += share * use.free;
}

void ModelTimeRun::step() {
  add_arrivals();
  scheduler_.schedule(&batch_, now_);
  if (batch_.empty()) {  // until something arrives or a batch starts
    double next = std::numeric_limits<double>::infinity();
    if (num_arrived_ < requests_.size()) next = requests_[num_arrived_].arrival;
    if (const auto start = scheduler_.waits_until(now_)) next = std::min(next, *start);
    QUIRE_CHECK_MSG(std::isfinite(next), "work waits, and nothing will start it");
    now_ = std::max(next, std::nextafter(now_, next));
    return;
  }
  const double seconds = seconds_of_step(cost_, batch_, run_.block_size, run_.system.kv_policy);
  measure(seconds);
  now_ += seconds;
  commit();
}

PaperOutcome ModelTimeRun::run() {
  while ((num_arrived_ < requests_.size() || scheduler_.has_work()) && now_ < run_.stop_at) step();
  outcome_.seconds = now_;
  outcome_.stats = scheduler_.stats();
  if (outcome_.num_finished > 0) {
    outcome_.normalised_latency = latency_sum_ / static_cast<double>(outcome_.num_finished);
  }
  outcome_.requests_per_second = static_cast<double>(outcome_.num_finished) / now_;
  outcome_.mean_running = running_seconds_ / now_;
  if (held_ > 0) outcome_.blocks_saved = 1 - used_ / held_;
  KvShares& kv = outcome_.kv;
  for (double* share :
       {&kv.tokens, &kv.reserved, &kv.internal, &kv.external, &kv.ended, &kv.free}) {
    if (kv.seconds > 0) *share /= kv.seconds;
  }
  return outcome_;
}

}  // namespace

PaperOutcome run_in_model_time(const CostModel& cost,
                               const PaperRun& run,
                               std::span<const PaperRequest> requests) {
  return ModelTimeRun(cost, run, requests).run();
}

}  // namespace quire
