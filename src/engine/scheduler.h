// Decides what every step computes. A pure state machine over integers: first come, first served;
// running sequences first, then waiting ones; when blocks run out the newest sequence is preempted
// and computes its tokens again later. Groups are admitted, forked and preempted whole.
//
// Why nothing starves: running sequences are ordered by arrival and all older than the waiting
// ones; tokens are given out in that order and blocks are taken from the newest. So the oldest
// sequence is in every batch, and add() refuses what could not finish even alone.
//
// Order of calls: schedule(b) .. launch .. commit(b, result). A second schedule() may come before
// the first commit (overlap with a device): num_computed advances at schedule(), and a token that
// is sampled but not committed is counted, not known.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/beam_search.h"
#include "engine/request_limits.h"
#include "engine/scheduled_batch.h"
#include "engine/sequence.h"
#include "kv/buddy_allocator.h"
#include "kv/prefix_cache.h"

namespace quire {

// What commit() did to one sequence of the batch.
struct CommittedSequence {
  SequenceId id;
  int32_t batch_index;
  int32_t num_new_tokens;  // at the end of the sequence's tokens
  FinishReason finish_reason;
};

// A beam search on its way. Its members are sequences that take turns at being beams.
struct BeamGroup {
  uint64_t arrival;
  BeamSearch search;
  std::vector<SequenceId> members;  // [width] by sample_index
  std::vector<SequenceId> beams;    // of each running beam of `search`; the other members are idle
  bool operator==(const BeamGroup&) const = default;
};

struct SchedulerStats {
  int64_t num_swapped_out = 0, num_swapped_in = 0;  // blocks
  int64_t num_preemptions = 0, num_prompt_tokens = 0, num_generated_tokens = 0;
  int64_t num_computed_tokens = 0, num_copied_blocks = 0;   // of all launched steps
  int64_t prefix_cache_queries = 0, prefix_cache_hits = 0;  // tokens
  int peak_used_blocks = 0;
  int64_t num_request_batches = 0;  // dynamic or static ones that have begun
  bool operator==(const SchedulerStats&) const = default;
};

class Scheduler {
 public:
  Scheduler(SchedulerConfig config, int num_blocks, int block_size);

  RequestLimits limits() const { return {config_, pool_.num_blocks(), pool_.block_size()}; }
  // Into the waiting line, unless the limits refuse it. Returns the first of the group.
  Result<SequenceId> add(SequenceSpec spec);
  // The sequences that the answers of this group will be read from, in order.
  std::vector<SequenceId> answers_of(SequenceId first) const;
  // Ends a sequence at any moment; the others of its group go on, but not those of a beam search.
  // Its blocks are free once no launched step contains it.
  void cancel(SequenceId id);

  // Fills *batch; it stays empty only when nothing can run now. `now` is the caller's clock, in
  // seconds: with SequenceSpec::submit_time it decides when a dynamic batch starts.
  void schedule(ScheduledBatch* batch, double now = 0);
  // Only time can start something: when that is.
  std::optional<double> waits_until(double now) const;
  // Takes the results of the oldest uncommitted batch. Sequences that end can be read until the
  // next add() or schedule(). Of a beam search nothing is told before its answers, all at once.
  void commit(const ScheduledBatch& batch,
              const StepResult& result,
              std::vector<CommittedSequence>* committed);

  // What computing a token of a prompt takes, as measured so far; for kAuto.
  void set_recompute_cost(double seconds_per_token) { recompute_cost_ = seconds_per_token; }

  bool has_work() const { return !running_.empty() || !waiting_.empty(); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  std::span<const SequenceId> running() const { return running_; }
  const std::deque<SequenceId>& waiting() const { return waiting_; }
  const Sequence& sequence(SequenceId id) const { return sequences_[id]; }
  std::span<const Sequence> sequences() const { return sequences_; }
  std::span<const BeamGroup> beam_groups() const { return beam_groups_; }
  const BlockPool& pool() const { return pool_; }
  // BlockPool::set_event_log of the pool (not the host's).
  void set_event_log(KvEventLog* log) { pool_.set_event_log(log); }
  const BlockPool& host_pool() const { return host_pool_; }
  const BuddyAllocator& regions() const { return regions_; }  // empty with paged and off
  const SchedulerConfig& config() const { return config_; }
  const SchedulerStats& stats() const { return stats_; }
  // Leading blocks of the sequence's table that it asked for; the others are the allocator's
  // rounding.
  int reserved_blocks(const Sequence& seq) const;
  // The first waiting group could run, but there is no memory for it.
  bool head_waits_for_memory() const;

  bool operator==(const Scheduler&) const = default;
  uint64_t state_hash() const;

 private:
  // What is left of the step's limits while it is being filled.
  struct Budget {
    int tokens;
    int prompt_rows;         // logit rows beyond one per sequence
    int outstanding_blocks;  // that running sequences still need for tokens they have
    bool preempted = false;
  };

  // The members of one group are neighbours in running_.
  struct GroupRange {
    size_t begin, end;
  };

  void fill(ScheduledBatch* batch, double now);
  void schedule_running(ScheduledBatch* batch, Budget* budget);
  bool schedule_group(GroupRange group, ScheduledBatch* batch, Budget* budget);
  GroupRange group_at(size_t begin) const;
  void count_tokens(GroupRange group, Budget budget);
  void admit_waiting(ScheduledBatch* batch, Budget* budget);
  bool admit(SequenceId id, ScheduledBatch* batch, Budget* budget);
  void start(SequenceId id, ScheduledBatch* batch, Budget* budget);
  int num_tokens_to_compute(const Sequence& seq, const Budget& budget) const;
  int num_rows_of(const Sequence& seq, int num_tokens) const;
  bool reserve_or_preempt(GroupRange group, ScheduledBatch* batch, Budget* budget);
  bool can_reserve(GroupRange group);
  bool writes_nothing(const Sequence& seq) const;
  void reserve(Sequence& seq, int num_tokens, std::vector<BlockCopy>* copies);
  void append_to_batch(SequenceId id, int num_tokens, ScheduledBatch* batch, Budget* budget);
  void append_sample(SequenceId id, ScheduledSequence source, ScheduledBatch* batch);
  static const ScheduledSequence* last_entry_of(SequenceId id, const ScheduledBatch& batch);
  void announce(Sequence& seq, ScheduledBatch* batch) const;
  void find_cached_prefix(Sequence& seq);
  void take_slot(Sequence& seq);
  int fork_if_due(SequenceId first, ScheduledBatch* batch);
  void preempt_newest_group(ScheduledBatch* batch);
  void give_up(Sequence& seq);
  bool should_swap(std::span<const SequenceId> members) const;
  bool swap_out(std::span<const SequenceId> members, ScheduledBatch* batch);
  bool admit_swapped(SequenceId first, ScheduledBatch* batch, Budget* budget);
  int blocks_to_swap_in(std::span<const SequenceId> members) const;
  void swap_in(Sequence& seq, ScheduledBatch* batch);
  bool may_be_admitted(const Sequence& seq) const;
  void promote(SequenceId first);
  void leave(SequenceId id);
  void finish_ended(std::span<const CommittedSequence> committed);

  // scheduler_beams.cc
  void open_beams(SequenceId first);
  BeamGroup& beam_group_of(const Sequence& seq);
  const BeamGroup& beam_group_of(const Sequence& seq) const;
  std::vector<SequenceId> idle_beams(const Sequence& seq) const;
  void count_beam_tokens(GroupRange group, Budget budget);
  void commit_beams(const ScheduledBatch& batch,
                    const StepResult& result,
                    std::vector<CommittedSequence>* committed);
  void advance_beams(int first_entry,
                     const ScheduledBatch& batch,
                     const StepResult& result,
                     std::vector<CommittedSequence>* committed);
  void continue_beams(BeamGroup& group, std::span<const BeamSearch::Choice> choices);
  void fork_beam(SequenceId id, const Sequence& parent);
  void retire_beam(SequenceId id);
  void replace_beams(BeamGroup& group, std::vector<SequenceId> beams);
  void finish_beams(BeamGroup& group,
                    bool is_valid,
                    int batch_index,
                    std::vector<CommittedSequence>* committed);
  void end_beams(BeamGroup& group, FinishReason reason);
  SequenceId open(const SequenceSpec& spec, int sample_index);
  void store_full_blocks(Sequence& seq, int num_computed);
  void append_token(Sequence& seq, int32_t token);
  TokenChain chain_of(Sequence& seq) const;
  void release(SequenceId id);
  void forget_ended();
  int blocks_missing(const Sequence& seq) const;

  // scheduler_policy.cc
  int tokens_to_reserve(const Sequence& seq) const;
  bool reserve_regions(SequenceId first);
  bool reserve_region(Sequence& seq);
  bool admit_contiguous(SequenceId first, ScheduledBatch* batch, Budget* budget);
  bool grow_regions(GroupRange group, ScheduledBatch* batch);
  void prepare_policy(ScheduledBatch* batch);
  void release_blocks(Sequence& seq);
  void take_over_prompt(Sequence& seq, const Sequence& source);
  // scheduler_batching.cc
  void open_batch(double now);
  double batch_start_time(double now) const;
  bool takes_another_request() const;
  void count_in_batch(bool admitted);
  void release_ended(SequenceId id);
  void end_batch_if_over();
  bool ends_batch_by_making_way() const;

  SchedulerConfig config_;
  BlockPool pool_;
  BuddyAllocator regions_;  // of the pool, for contiguous policies
  BlockPool host_pool_;
  std::vector<Sequence> sequences_;
  std::vector<SequenceId> unused_ids_;
  std::vector<SequenceId> ended_;
  std::vector<int32_t> unused_slots_;
  std::vector<SequenceId> running_;  // oldest first
  std::deque<SequenceId> waiting_;   // oldest first, all younger than the running ones
  std::vector<BeamGroup> beam_groups_;
  uint64_t num_arrivals_ = 0;
  double recompute_cost_ = 0;  // seconds a token
  int batch_places_ = 0;       // requests that the dynamic or static batch still takes
  SchedulerStats stats_;
  std::vector<BlockId> found_;     // scratch of admit()
  std::vector<int> counts_;        // scratch of schedule_group(): tokens of each member
  std::vector<BlockId> written_;   // scratch of can_reserve()
  std::vector<BlockId> place_of_;  // scratch of swapping: block of the one pool -> of the other
};

}  // namespace quire
