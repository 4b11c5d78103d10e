// Executes a workload on the scheduler with the fake model and checks everything after every step.
#include <algorithm>
#include <array>
#include <deque>
#include <optional>

#include "engine/scheduler.h"
#include "simulation/beam_checks.h"
#include "simulation/expectations.h"
#include "simulation/fake_model_runner.h"
#include "simulation/settings.h"
#include "simulation/workload.h"

namespace quire {

namespace {

class Simulation {
 public:
  explicit Simulation(const Workload& w)
      : w_(w),
        runner_(runner_info(w)),
        scheduler_(scheduler_config(w), w.num_blocks, w.block_size),
        progress_(w.requests.size()) {
    runner_.set_num_host_blocks(w.num_host_blocks);
  }

  std::string run(SimCounters* counters);

 private:
  struct Progress {
    std::optional<uint64_t> arrival;
    std::vector<std::vector<int32_t>> outputs;  // [n]
    std::vector<std::optional<double>> scores;  // [n]
    std::vector<FinishReason> reasons;          // [n]
    int num_ended = 0;
    int num_prompt_rows = 0;
    int next_row = 0;  // position of the next logit row that may be shown
    bool done = false, cancelled = false, refused = false;
  };
  struct Step {
    ScheduledBatch batch;
    bool launched = false;
  };

  void fail(const std::string& what) {
    if (failure_.empty()) failure_ = "step " + std::to_string(step_) + ": " + what;
  }
  void arrivals();
  void cancels(bool between);
  void schedule_and_launch();
  void commit(Step& step);
  void take_output(const CommittedSequence& done, const Step& step);
  void check_blocks();
  void check_contents();
  void check_batch(const ScheduledBatch& batch);
  void check_oldest_is_served(const ScheduledBatch& batch);
  void check_end();
  void check_answers(const Progress& p, const SimRequest& r, const std::string& who);
  void check_beams(const Progress& p, const SimRequest& r, const std::string& who);
  int request_of(SequenceId id) const;
  int64_t step_bound() const;

  const Workload& w_;
  FakeModelRunner runner_;
  Scheduler scheduler_;
  std::vector<Progress> progress_;
  std::array<Step, 2> steps_;
  int num_launched_ = 0;
  int64_t num_copies_ = 0;
  int step_ = 0;
  StepResult result_;
  std::vector<CommittedSequence> committed_;
  std::string failure_;
};

int Simulation::request_of(SequenceId id) const {
  for (size_t i = 0; i < progress_.size(); ++i) {
    const bool is_its = progress_[i].arrival == scheduler_.sequence(id).arrival;
    if (is_its && !progress_[i].done) return static_cast<int>(i);
  }
  return -1;
}

void Simulation::arrivals() {
  for (size_t i = 0; i < w_.requests.size(); ++i) {
    const SimRequest& r = w_.requests[i];
    if (r.arrival_step != step_) continue;
    SequenceSpec spec;
    spec.prompt = r.prompt;
    spec.cache_salt = r.salt;
    spec.eos_token_ids = {kEos};
    spec.wants_all_rows = r.wants_all_rows;
    spec.sampling.n = r.n;
    spec.sampling.beam_width = r.beam_width;
    spec.sampling.length_penalty = r.length_penalty;
    spec.sampling.early_stopping = r.early_stopping;
    spec.sampling.max_tokens = r.max_tokens;
    spec.sampling.min_tokens = r.min_tokens;
    spec.sampling.expected_output_tokens = r.expected_output_tokens;
    spec.submit_time = step_;
    spec.sampling.stop_token_ids = r.stop_token_ids;
    spec.sampling.ignore_eos = r.ignore_eos;
    spec.sampling.seed = fake_salt_seed(r.salt);
    const Result<SequenceId> id = scheduler_.add(std::move(spec));
    if (id.ok() != can_ever_finish(w_, r)) {
      fail(id.ok() ? "accepted a request that cannot finish" : "refused one that can");
    }
    if (id.ok()) {
      progress_[i].arrival = scheduler_.sequence(*id).arrival;
      progress_[i].outputs.resize(r.n);
      progress_[i].scores.resize(r.n);
      progress_[i].reasons.resize(r.n);
    } else {
      progress_[i].done = progress_[i].refused = true;
    }
  }
}

void Simulation::cancels(bool between) {
  for (size_t i = 0; i < w_.requests.size(); ++i) {
    const SimRequest& r = w_.requests[i];
    Progress& p = progress_[i];
    if (r.cancel_step != step_ || r.cancel_between != between || p.done || !p.arrival) continue;
    for (SequenceId id = 0; id < static_cast<int>(scheduler_.sequences().size()); ++id) {
      if (scheduler_.sequence(id).arrival != *p.arrival) continue;
      scheduler_.cancel(id);
      check_blocks();
    }
    p.done = p.cancelled = true;
  }
}

void Simulation::schedule_and_launch() {
  Step& step = steps_[num_launched_ % 2];
  scheduler_.schedule(&step.batch, step_);
  check_blocks();
  check_batch(step.batch);
  check_oldest_is_served(step.batch);
  if (step.batch.empty() || !failure_.empty()) return;
  if (!runner_.launch(step.batch).ok()) fail("launch failed");
  step.launched = true;
  ++num_launched_;
  num_copies_ += static_cast<int>(step.batch.copies.size());
}

void Simulation::commit(Step& step) {
  step.launched = false;
  if (!runner_.collect(&result_).ok()) fail("collect failed");
  for (const ScheduledSequence& s : step.batch.sequences) {
    const int request = request_of(s.id);
    if (request < 0 || !w_.requests[request].wants_all_rows || w_.requests[request].n > 1) continue;
    Progress& p = progress_[request];
    const int first = s.start + s.num_tokens - s.num_rows;
    if (s.num_rows > 0 && first != p.next_row) fail("a logit row is missing or shown twice");
    p.next_row += s.num_rows;
  }
  scheduler_.commit(step.batch, result_, &committed_);
  for (const CommittedSequence& done : committed_) take_output(done, step);
  check_blocks();
  check_contents();
}

void Simulation::take_output(const CommittedSequence& done, const Step& step) {
  const int request = request_of(done.id);
  if (request < 0) return fail("output for a sequence that has ended");
  Progress& p = progress_[request];
  const Sequence& seq = scheduler_.sequence(done.id);
  auto& output = p.outputs[seq.sample_index];
  output.insert(output.end(), seq.tokens.end() - done.num_new_tokens, seq.tokens.end());
  p.scores[seq.sample_index] = seq.score;
  p.reasons[seq.sample_index] = done.finish_reason;
  p.num_ended += done.finish_reason != FinishReason::kNone;
  p.done = p.num_ended == w_.requests[request].n;
}

// free + cached + used == N, reference counts, lists and the hash index.
void Simulation::check_blocks() {
  const BlockPool& pool = scheduler_.pool();
  if (const std::string wrong = pool.find_inconsistency(); !wrong.empty()) fail(wrong);
  if (const std::string wrong = find_beam_inconsistency(scheduler_); !wrong.empty()) fail(wrong);
  std::vector<int> holders(w_.num_blocks, 0);
  for (const Sequence& seq : scheduler_.sequences()) {
    for (BlockId block : seq.table.blocks()) ++holders[block];
    if (seq.state == SequenceState::kWaiting && seq.table.size() > 0) fail("waits with blocks");
    if (is_contiguous(w_.kv_policy)) {
      for (int i = 1; i < seq.table.size(); ++i) {
        if (seq.table[i] != seq.table[0] + i) fail("a region is not contiguous");
      }
    }
    if (seq.state == SequenceState::kRunning &&
        seq.table.size() * w_.block_size < seq.num_computed) {
      fail("a sequence has computed more tokens than its blocks hold");
    }
  }
  if (is_contiguous(w_.kv_policy)) {
    const BuddyAllocator& regions = scheduler_.regions();
    if (const std::string wrong = regions.find_inconsistency(); !wrong.empty()) fail(wrong);
    if (regions.num_free() != pool.num_free()) fail("regions and pool count free blocks apart");
  }
  for (BlockId block = 0; block < w_.num_blocks; ++block) {
    if (is_contiguous(w_.kv_policy) && holders[block] > 1) fail("a region has two holders");
    if (holders[block] != pool.ref_count(block)) {
      fail("block " + std::to_string(block) + " has " + std::to_string(pool.ref_count(block)) +
           " references and " + std::to_string(holders[block]) + " holders");
    }
  }
}

// The KV memory of every block that can be found by its content holds that content.
void Simulation::check_contents() {
  const BlockPool& pool = scheduler_.pool();
  for (BlockId block = 0; block < w_.num_blocks; ++block) {
    if (!pool.has_content(block)) continue;
    const BlockId parent = pool.parent(block);
    uint64_t content = parent >= 0 ? runner_.kv((int64_t{parent} + 1) * w_.block_size - 1)
                                   : fake_salt_seed(pool.salt(parent));
    for (int i = 0; i < w_.block_size; ++i) {
      content = FakeHistory::next_content(content, pool.tokens(block)[i]);
      if (runner_.kv(int64_t{block} * w_.block_size + i) != content) {
        return fail("block " + std::to_string(block) + " does not hold what its key says");
      }
    }
  }
}

void Simulation::check_batch(const ScheduledBatch& batch) {
  const BlockPool& pool = scheduler_.pool();
  if (static_cast<int>(batch.tokens.size()) > w_.max_num_batched_tokens) fail("too many tokens");
  if (static_cast<int>(batch.logit_rows.size()) > w_.max_num_seqs + w_.extra_rows) {
    fail("too many logit rows");
  }
  std::vector<int> writers(w_.num_blocks, 0);
  std::vector<int32_t> slots;
  for (const ScheduledSequence& s : batch.sequences) {
    slots.push_back(s.slot);
    if (s.only_samples()) {
      if (!s.samples || s.num_rows != 1) fail("an entry does nothing");
      continue;
    }
    const auto blocks = batch.blocks_of(s);
    const int last = (s.start + s.num_tokens - 1) / w_.block_size;
    if (last >= s.num_blocks) return fail("the block table is too short for its tokens");
    for (int i = s.start / w_.block_size; i <= last && s.num_unwritten == 0; ++i) {
      if (pool.has_content(blocks[i])) fail("writes to a cached block");
      if (++writers[blocks[i]] > 1) fail("two sequences write to one block");
    }
    if (w_.long_prefill_token_threshold > 0 && s.num_tokens > w_.long_prefill_token_threshold) {
      fail("more tokens than long_prefill_token_threshold");
    }
  }
  std::ranges::sort(slots);
  if (std::ranges::adjacent_find(slots) != slots.end()) fail("two sequences share a slot");
  if (scheduler_.num_running() > w_.max_num_seqs) fail("more than max_num_seqs are running");
  if (!slots.empty() && (slots.front() < 0 || slots.back() >= w_.max_num_seqs)) fail("bad slot");
}

// No starvation: of the request that came first something is computed in every step.
void Simulation::check_oldest_is_served(const ScheduledBatch& batch) {
  std::optional<uint64_t> oldest;
  for (const Sequence& seq : scheduler_.sequences()) {
    // With overlap an ended sequence may hold its blocks for one more step.
    if (seq.state == SequenceState::kFinished) return;
    const bool open = seq.state == SequenceState::kWaiting || seq.state == SequenceState::kRunning;
    if (open && (!oldest || seq.arrival < *oldest)) oldest = seq.arrival;
  }
  if (!oldest || scheduler_.waits_until(step_)) return;
  for (const ScheduledSequence& s : batch.sequences) {
    if (scheduler_.sequence(s.id).arrival == *oldest) return;
  }
  for (const Sequence& seq : scheduler_.sequences()) {
    if (seq.state == SequenceState::kUnused || seq.arrival != *oldest) continue;
    // All it needs is in flight, or it was preempted with a token in flight.
    if (seq.num_in_flight > 0 && (seq.num_pending > 0 || seq.max_output == 0)) return;
  }
  fail("nothing of the oldest request is in the batch");
}

void Simulation::check_end() {
  const BlockPool& pool = scheduler_.pool();
  if (pool.num_used() != 0) fail("blocks leak");
  if (scheduler_.host_pool().num_used() != 0) fail("host blocks leak");
  int num_roots = 0;
  for (const char* salt : {"", "a", "b"}) {
    bool found = false;
    for (BlockId b = 0; b < w_.num_blocks; ++b) {
      found |= pool.has_content(b) && pool.parent(b) < 0 && pool.salt(pool.parent(b)) == salt;
    }
    num_roots += found;
  }
  if (pool.num_roots() != num_roots) fail("roots leak");
  if (!w_.enable_prefix_caching && pool.num_cached() != 0) fail("cached without prefix caching");
  for (size_t i = 0; i < w_.requests.size(); ++i) {
    const Progress& p = progress_[i];
    const SimRequest& r = w_.requests[i];
    if (p.refused) continue;
    const std::string who = "request " + std::to_string(i);
    if (r.beam_width > 0) {
      if (!p.cancelled) check_beams(p, r, who);
    } else {
      check_answers(p, r, who);
    }
  }
}

void Simulation::check_answers(const Progress& p, const SimRequest& r, const std::string& who) {
  for (int index = 0; index < r.n; ++index) {
    const std::vector<int32_t>& output = p.outputs[index];
    const std::vector<int32_t> expected = expected_output(w_, r, index);
    const std::string answer = "answer " + std::to_string(index) + " of " + who;
    const bool is_prefix = output.size() <= expected.size() &&
                           std::equal(output.begin(), output.end(), expected.begin());
    if (!is_prefix) fail(answer + " got wrong tokens");
    if (!p.cancelled && output.size() != expected.size()) fail(answer + " got too few tokens");
  }
  if (p.cancelled || !r.wants_all_rows || r.n > 1) return;
  const int outputs = std::max<int>(1, static_cast<int>(p.outputs[0].size()));
  const int rows = static_cast<int>(r.prompt.size()) + outputs - 1;
  if (p.next_row < rows) fail(who + " was shown too few logit rows");
}

void Simulation::check_beams(const Progress& p, const SimRequest& r, const std::string& who) {
  const std::vector<ReferenceAnswer> expected = expected_beams(w_, r);
  for (size_t index = 0; index < p.outputs.size(); ++index) {
    const std::string answer = "beam answer " + std::to_string(index) + " of " + who;
    if (index >= expected.size()) {
      if (p.reasons[index] != FinishReason::kError) fail(answer + " is there in spite of all");
      continue;
    }
    const ReferenceAnswer& want = expected[index];
    if (p.outputs[index] != want.tokens) fail(answer + " has wrong tokens");
    if (p.scores[index] != want.score) fail(answer + " has a wrong score");
    const bool stopped = p.reasons[index] == FinishReason::kStop;
    if (stopped != want.stopped) fail(answer + " has a wrong finish reason");
  }
}

// Each request, once it is the oldest, needs this many steps at most.
int64_t Simulation::step_bound() const {
  int64_t bound = 64 + static_cast<int64_t>(w_.requests.size()) * w_.batch_window;
  for (const SimRequest& r : w_.requests) {
    bound += 4 * num_sequences(r) *
             (static_cast<int64_t>(r.prompt.size()) + std::min(r.max_tokens, w_.max_model_len));
  }
  return bound;
}

std::string Simulation::run(SimCounters* counters) {
  const int64_t bound = step_bound();
  const auto all_done = [&] {
    return std::ranges::all_of(progress_, [](const Progress& p) { return p.done; });
  };
  const auto in_flight = [&] { return steps_[0].launched || steps_[1].launched; };
  for (; failure_.empty() && !(all_done() && !in_flight()); ++step_) {
    if (step_ > bound) fail("no end after " + std::to_string(bound) + " steps");
    arrivals();
    cancels(false);
    const int before = num_launched_;
    schedule_and_launch();
    cancels(true);
    const bool launched = num_launched_ != before;
    Step& latest = steps_[(num_launched_ + 1) % 2];
    Step& earlier = steps_[num_launched_ % 2];
    if (w_.depth > 1 && launched) {
      if (earlier.launched) commit(earlier);
    } else if (latest.launched) {
      commit(latest);
    }
  }
  if (failure_.empty()) check_end();
  if (counters) {
    const SchedulerStats& stats = scheduler_.stats();
    counters->steps += step_;
    counters->preemptions += stats.num_preemptions;
    counters->copies += num_copies_;
    counters->swapped_out += stats.num_swapped_out;
    counters->swapped_in += stats.num_swapped_in;
    counters->prefix_hits += stats.prefix_cache_hits;
    counters->evictions += scheduler_.pool().num_evictions();
    for (size_t i = 0; i < progress_.size(); ++i) {
      const Progress& p = progress_[i];
      counters->beam_searches += w_.requests[i].beam_width > 1 && !p.refused && !p.cancelled;
      (p.refused ? counters->refused : p.cancelled ? counters->cancelled : counters->finished)++;
    }
  }
  return failure_;
}

}  // namespace

std::string run_workload(const Workload& workload, SimCounters* counters) {
  return Simulation(workload).run(counters);
}

}  // namespace quire
