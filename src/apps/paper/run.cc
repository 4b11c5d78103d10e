#include "apps/paper/run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "apps/terminal.h"
#include "base/check.h"
#include "engine/kv_use.h"

namespace quire {

PaperSystem paged_system() { return {"paged", "quire (paged)"}; }
PaperSystem orca_oracle_system() { return {"orca-oracle", "Orca (Oracle)", KvPolicy::kOracle}; }

std::vector<PaperSystem> paper_systems(const PaperSizes& sizes) {
  const int blocks = num_blocks_for(sizes.max_model_len, sizes.block_size);
  // As many as memory holds of the maximum length.
  const int fits = BuddyAllocator(sizes.num_blocks(sizes.block_size)).capacity_for(blocks);
  return {{"faster-transformer", "FasterTransformer", KvPolicy::kMax, Batching::kDynamic, fits},
          {"hugging-face", "Hugging Face", KvPolicy::kGrow, Batching::kStatic, fits},
          {"orca-max", "Orca (Max)", KvPolicy::kMax},
          {"orca-pow2", "Orca (Pow2)", KvPolicy::kPow2},
          orca_oracle_system(),
          paged_system()};
}

namespace {

class ExperimentRun {
 public:
  ExperimentRun(const PaperPlatform& platform,
                const PaperRun& run,
                std::span<const PaperRequest> requests,
                PaperMachine& machine)
      : platform_(platform),
        run_(run),
        requests_(requests),
        machine_(machine),
        scheduler_(scheduler_config(platform, run),
                   platform.sizes().num_blocks(platform.block_size(run)),
                   platform.block_size(run)) {}

  Result<PaperOutcome> run();

 private:
  static SchedulerConfig scheduler_config(const PaperPlatform& platform, const PaperRun& run);
  Status add_arrivals();
  Status step();
  void wait();
  void commit();
  void answer_finished();
  void measure(double seconds);
  void measure_sharing(double seconds);
  bool is_request_level() const { return run_.system.batching != Batching::kContinuous; }

  const PaperPlatform& platform_;
  const PaperRun& run_;
  const std::span<const PaperRequest> requests_;
  PaperMachine& machine_;
  Scheduler scheduler_;
  double now_ = 0;
  int64_t num_batches_ = 0;  // request-level ones that have begun
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

SchedulerConfig ExperimentRun::scheduler_config(const PaperPlatform& platform,
                                                const PaperRun& run) {
  const PaperSizes& sizes = platform.sizes();
  SchedulerConfig config;
  config.max_num_seqs = sizes.max_num_seqs;
  config.max_num_batched_tokens = sizes.max_num_batched_tokens;
  config.max_model_len = sizes.max_model_len;
  config.max_logit_rows = config.max_num_seqs + 1;
  config.enable_prefix_caching = run.prefix_caching;
  config.kv_policy = run.system.kv_policy;
  config.batching = run.system.batching;
  config.batch_size = run.system.batch_size;
  config.batch_window = run.system.batch_window;
  if (run.swaps) {
    config.preemption_mode = PreemptionMode::kSwap;
    config.num_host_blocks = sizes.num_blocks(platform.block_size(run));
  }
  return config;
}

// Prompts differ behind what they share.
Status ExperimentRun::add_arrivals() {
  while (num_arrived_ < requests_.size() && requests_[num_arrived_].arrival <= now_) {
    const PaperRequest& request = requests_[num_arrived_];
    SequenceSpec spec;
    spec.prompt.resize(request.prompt);
    const int own = static_cast<int>(num_arrived_) + 1;
    for (int i = 0; i < request.prompt; ++i) {
      spec.prompt[i] = platform_.token(i < request.shared_prefix ? 0 : own, i);
    }
    spec.sampling.n = request.n;
    spec.sampling.beam_width = request.beam_width;
    spec.sampling.max_tokens = request.output;
    spec.sampling.ignore_eos = true;
    spec.sampling.seed = 0;
    spec.submit_time = request.arrival;
    QUIRE_RETURN_IF_ERROR(scheduler_.add(std::move(spec)).status());
    request_of_.push_back(num_arrived_);
    answers_left_.push_back(request.n);
    ++num_arrived_;
  }
  return {};
}

void ExperimentRun::commit() {
  scheduler_.commit(batch_, result_, &committed_);
  for (const CommittedSequence& done : committed_) {
    if (done.finish_reason == FinishReason::kNone) continue;
    const uint64_t arrival = scheduler_.sequence(done.id).arrival;
    if (--answers_left_[arrival] == 0) finished_.push_back(request_of_[arrival]);
  }
  if (!is_request_level() || scheduler_.num_running() == 0) answer_finished();
}

void ExperimentRun::answer_finished() {
  for (const size_t index : finished_) {
    const PaperRequest& request = requests_[index];
    latency_sum_ += (now_ - request.arrival) / request.output;
    ++outcome_.num_finished;
  }
  finished_.clear();
}

void ExperimentRun::measure_sharing(double seconds) {
  int64_t held = 0;
  for (const SequenceId id : scheduler_.running()) held += scheduler_.sequence(id).table.size();
  held_ += seconds * static_cast<double>(held);
  used_ += seconds * scheduler_.pool().num_used();
}

// What lasts until the next step.
void ExperimentRun::measure(double seconds) {
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

// The clock goes to what starts something: an arrival, or the end of a dynamic batch's window.
void ExperimentRun::wait() {
  double next = scheduler_.waits_until(now_).value_or(std::numeric_limits<double>::infinity());
  if (num_arrived_ < requests_.size()) next = std::min(next, requests_[num_arrived_].arrival);
  QUIRE_CHECK_MSG(std::isfinite(next), "work waits, and nothing will start it");
  now_ = std::max(next, std::nextafter(now_, next));
}

Status ExperimentRun::step() {
  if (Interrupt::requested()) return cancelled("interrupted");
  QUIRE_RETURN_IF_ERROR(add_arrivals());
  scheduler_.schedule(&batch_, now_);
  // The last batch may be over without its last member's end, which made way for the others.
  const int64_t num_batches = scheduler_.stats().num_request_batches;
  if (num_batches != num_batches_) answer_finished();
  num_batches_ = num_batches;
  if (batch_.empty()) {
    wait();
    return {};
  }
  QUIRE_ASSIGN_OR_RETURN(const double seconds, machine_.compute(scheduler_, batch_, &result_));
  measure(seconds);
  now_ += seconds;
  commit();
  return {};
}

Result<PaperOutcome> ExperimentRun::run() {
  while ((num_arrived_ < requests_.size() || scheduler_.has_work()) && now_ < run_.stop_at) {
    QUIRE_RETURN_IF_ERROR(step());
  }
  outcome_.seconds = now_;
  outcome_.stats = scheduler_.stats();
  if (outcome_.num_finished > 0) {
    outcome_.normalised_latency = latency_sum_ / static_cast<double>(outcome_.num_finished);
  }
  if (now_ > 0) {
    outcome_.requests_per_second = static_cast<double>(outcome_.num_finished) / now_;
    outcome_.mean_running = running_seconds_ / now_;
  }
  if (held_ > 0) outcome_.blocks_saved = 1 - used_ / held_;
  KvShares& kv = outcome_.kv;
  for (double* share :
       {&kv.tokens, &kv.reserved, &kv.internal, &kv.external, &kv.ended, &kv.free}) {
    if (kv.seconds > 0) *share /= kv.seconds;
  }
  return outcome_;
}

}  // namespace

Result<PaperOutcome> run_experiment(const PaperPlatform& platform,
                                    const PaperRun& run,
                                    std::span<const PaperRequest> requests) {
  QUIRE_ASSIGN_OR_RETURN(const std::unique_ptr<PaperMachine> machine, platform.machine(run));
  return ExperimentRun(platform, run, requests, *machine).run();
}

}  // namespace quire
