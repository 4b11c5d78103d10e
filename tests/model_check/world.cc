#include "world.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>

#include "base/hash.h"
#include "kv/block_hash.h"
#include "simulation/beam_checks.h"

namespace quire {
namespace {

uint64_t next_content(uint64_t previous, int32_t token) {
  return mix64(previous * 3 + static_cast<uint32_t>(token) + 1);
}

std::vector<BeamCandidate> beam_candidates(int32_t outcome) {
  const bool ends = (outcome & 1) != 0, is_likely = (outcome & 2) != 0;
  const double best = is_likely ? -1 : -8;
  if (ends) return {{kEnd, best}, {0, best - 1}, {2, best - 2}};
  return {{0, best}, {2, best - 1}, {kEnd, best - 2}};
}

std::string at(const Sequence& seq, int position) {
  return " (arrival " + std::to_string(seq.arrival) + ", position " + std::to_string(position) +
         ")";
}

}  // namespace

std::string World::Action::to_string() const {
  switch (kind) {
    case Kind::kAdd:
      return "add";
    case Kind::kCancel:
      return "cancel(" + std::to_string(argument) + ")";
    case Kind::kLaunch:
      return "launch(" + std::to_string(argument) + ")";
    case Kind::kCommit:
      return "commit";
    case Kind::kWait:
      return "wait";
  }
  return "";
}

World::World(const ModelCase& model)
    : model_(&model),
      scheduler_(model.scheduler, model.num_blocks, model.block_size),
      kv_(static_cast<size_t>(model.num_blocks) * model.block_size, 0),
      host_kv_(static_cast<size_t>(model.scheduler.num_host_blocks) * model.block_size, 0),
      last_token_(model.scheduler.max_num_seqs, -1) {}

void World::list_actions(std::vector<Action>* actions) const {
  actions->clear();
  if (next_request_ < static_cast<int>(model_->requests.size())) actions->push_back({Kind::kAdd});
  if (!flights_.empty()) actions->push_back({Kind::kCommit});
  if (flights_.empty() && scheduler_.waits_until(now_)) actions->push_back({Kind::kWait});
  for (SequenceId id = 0; id < static_cast<int>(scheduler_.sequences().size()); ++id) {
    const SequenceState state = scheduler_.sequence(id).state;
    const bool is_open = state == SequenceState::kRunning || state == SequenceState::kWaiting;
    if (is_open) actions->push_back({Kind::kCancel, id});
  }
}

std::string World::apply(const Action& action) {
  std::string wrong;
  switch (action.kind) {
    case Kind::kAdd: {
      const ModelRequest& request = model_->requests[next_request_++];
      SequenceSpec spec;
      spec.prompt = request.prompt;
      spec.sampling.max_tokens = request.max_tokens;
      spec.sampling.n = request.n;
      spec.sampling.beam_width = request.beam_width;
      spec.sampling.early_stopping = request.early_stopping;
      spec.sampling.expected_output_tokens = request.expected_output;
      spec.eos_token_ids = {kEnd};
      spec.cache_salt = request.salt;
      spec.wants_all_rows = request.wants_all_rows;
      spec.submit_time = now_;
      if (!scheduler_.add(std::move(spec)).ok()) wrong = "a request of the case is refused";
      break;
    }
    case Kind::kCancel:
      scheduler_.cancel(action.argument);
      break;
    case Kind::kLaunch:
      wrong = launch(action.argument);
      break;
    case Kind::kCommit:
      wrong = commit();
      break;
    case Kind::kWait:
      now_ = *scheduler_.waits_until(now_);
      break;
  }
  return wrong.empty() ? check() : wrong;
}

std::string World::launch(int32_t outcomes) {
  Flight flight;
  const Lines before = lines();
  scheduler_.schedule(&flight.batch, now_);
  num_outcome_bits_ = 0;
  if (std::string wrong = check_admission(before); !wrong.empty()) return wrong;
  if (flight.batch.empty()) {
    const bool must_run =
        flights_.empty() && scheduler_.has_work() && !scheduler_.waits_until(now_);
    return must_run ? "work waits, but nothing is scheduled" : "";
  }
  if (std::string wrong = write_kv(flight.batch); !wrong.empty()) return wrong;
  for (const ScheduledSequence& entry : flight.batch.sequences) {
    int32_t token = -1, outcome = -1;
    if (entry.samples && scheduler_.sequence(entry.id).is_beam()) {
      outcome = (outcomes >> num_outcome_bits_) & 3;
      num_outcome_bits_ += 2;
    } else if (entry.samples) {
      token = (outcomes >> num_outcome_bits_++) & 1;
      last_token_[entry.slot] = token;
    }
    flight.sampled.push_back(token);
    flight.outcomes.push_back(outcome);
  }
  flights_.push_back(std::move(flight));
  return "";
}

World::Lines World::lines() const {
  Lines lines;
  for (const SequenceId id : scheduler_.running()) {
    const Sequence& seq = scheduler_.sequence(id);
    lines.running.emplace_back(seq.arrival, seq.num_preemptions);
  }
  lines.num_waiting = scheduler_.num_waiting();
  return lines;
}

// A dynamic or static batch takes at most batch_size of the requests that wait when it begins, and
// nobody before its last member has ended or made way.
std::string World::check_admission(const Lines& before) {
  if (model_->scheduler.batching == Batching::kContinuous) return "";
  bool goes_on = false;
  std::set<uint64_t> joined;
  for (const auto& entry : lines().running) {
    const bool ran = std::ranges::find(before.running, entry) != before.running.end();
    goes_on |= ran;
    if (!ran) joined.insert(entry.first);
  }
  if (joined.empty()) return "";
  if (!goes_on) {
    if (std::string wrong = check_batch_start(before); !wrong.empty()) return wrong;
  }
  num_joined_ += static_cast<int>(joined.size());
  return num_joined_ > most_join_ ? "a request joins a batch that has begun" : "";
}

std::string World::check_batch_start(const Lines& before) {
  std::set<uint64_t> made_way;
  for (const auto& [arrival, epoch] : before.running) made_way.insert(arrival);
  const int num_waiting = before.num_waiting + static_cast<int>(made_way.size());
  num_joined_ = 0;
  most_join_ = std::min(model_->scheduler.batch_size, num_waiting);
  double oldest = now_;
  for (const Sequence& seq : scheduler_.sequences()) {
    if (seq.state == SequenceState::kFinished) return "a batch begins before the last one is over";
    const bool is_open =
        seq.state == SequenceState::kRunning || seq.state == SequenceState::kWaiting;
    if (is_open) oldest = std::min(oldest, seq.submit_time);
  }
  const bool is_due = num_waiting >= model_->scheduler.batch_size ||
                      now_ >= oldest + model_->scheduler.batch_window;
  if (model_->scheduler.batching != Batching::kDynamic || is_due) return "";
  return "a dynamic batch begins before it is full or its window over";
}

void World::copy_blocks(const std::vector<BlockCopy>& copies,
                        const std::vector<uint64_t>& from,
                        std::vector<uint64_t>* to) const {
  const int block_size = model_->block_size;
  for (const BlockCopy& copy : copies) {
    std::copy_n(from.begin() + int64_t{copy.source} * block_size,
                block_size,
                to->begin() + int64_t{copy.destination} * block_size);
  }
}

// What a runner does: K and V of a token depend on all tokens before it, read through the block
// table, and are written where the block table says.
std::string World::write_kv(const ScheduledBatch& batch) {
  const int block_size = model_->block_size;
  copy_blocks(batch.swap_out, kv_, &host_kv_);
  copy_blocks(batch.swap_in, host_kv_, &kv_);
  copy_blocks(batch.copies, kv_, &kv_);
  std::map<BlockId, SequenceId> writer;  // what else may read the block, check_contents() sees
  for (const ScheduledSequence& entry : batch.sequences) {
    if (entry.only_samples()) continue;
    const Sequence& seq = scheduler_.sequence(entry.id);
    const auto blocks = batch.blocks_of(entry);
    if (model_->scheduler.kv_policy == KvPolicy::kOff && entry.start > 0) {
      return "a step needs KV of another, though none is kept" + at(seq, entry.start);
    }
    uint64_t content = entry.start == 0 ? root_hash(scheduler_.pool().salt(seq.root))
                                        : kv_[kv_slot(blocks, entry.start - 1, block_size)];
    for (int i = entry.num_unwritten; i < entry.num_tokens; ++i) {
      const int position = entry.start + i;
      const BlockId block = blocks[position / block_size];
      if (scheduler_.pool().has_content(block)) {
        return "a step writes to a cached block" + at(seq, position);
      }
      if (writer.try_emplace(block, entry.id).first->second != entry.id) {
        return "two sequences write to one block" + at(seq, position);
      }
      int32_t token = batch.tokens[entry.first_token + i];
      if (token == kPendingToken) token = last_token_[entry.slot];
      content = next_content(content, token);
      kv_[kv_slot(blocks, position, block_size)] = content;
    }
  }
  return "";
}

std::string World::commit() {
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  StepResult result;
  result.clear(static_cast<int>(flight.batch.sequences.size()));
  for (size_t i = 0; i < flight.sampled.size(); ++i) {
    if (flight.sampled[i] >= 0) result.tokens.push_back(flight.sampled[i]);
    result.token_start[i + 1] = static_cast<int32_t>(result.tokens.size());
    if (flight.outcomes[i] >= 0) result.beam_candidates[i] = beam_candidates(flight.outcomes[i]);
  }
  std::vector<CommittedSequence> committed;
  scheduler_.commit(flight.batch, result, &committed);
  for (const CommittedSequence& done : committed) {
    const Sequence& seq = scheduler_.sequence(done.id);
    if (done.num_new_tokens > 1 && !seq.is_beam()) return "one step gave a sequence two tokens";
    if (seq.num_output() > seq.max_output) return "a sequence is longer than it may be";
  }
  return "";
}

bool World::is_over() const {
  return next_request_ == static_cast<int>(model_->requests.size()) && !scheduler_.has_work() &&
         flights_.empty();
}

uint64_t World::hash() const {
  uint64_t h = hash_combine(scheduler_.state_hash(), next_request_);
  for (const Flight& flight : flights_) {
    for (size_t i = 0; i < flight.sampled.size(); ++i) {
      const ScheduledSequence& entry = flight.batch.sequences[i];
      h = hash_combine(h, (uint64_t{static_cast<uint32_t>(entry.id)} << 32) | entry.epoch);
      h = hash_combine(h, (uint64_t{static_cast<uint32_t>(entry.start)} << 32) | entry.num_tokens);
      h = hash_combine(h, static_cast<uint32_t>(flight.sampled[i] * 8 + flight.outcomes[i]));
    }
    h = hash_combine(h, flight.sampled.size());
  }
  if (model_->scheduler.batching == Batching::kContinuous) return h;
  h = hash_combine(h, (uint64_t{static_cast<uint32_t>(num_joined_)} << 32) | most_join_);
  h = hash_combine(h, std::bit_cast<uint64_t>(now_));
  for (const SequenceId id : scheduler_.waiting()) {
    h = hash_combine(h, std::bit_cast<uint64_t>(scheduler_.sequence(id).submit_time));
  }
  return h;
}

std::string World::check() const {
  if (std::string wrong = scheduler_.pool().find_inconsistency(); !wrong.empty()) return wrong;
  if (std::string wrong = find_beam_inconsistency(scheduler_); !wrong.empty()) return wrong;
  if (std::string wrong = check_references(); !wrong.empty()) return wrong;
  if (std::string wrong = check_policy(); !wrong.empty()) return wrong;
  return check_contents();
}

std::string World::check_policy() const {
  if (is_contiguous(model_->scheduler.kv_policy)) return check_regions();
  const bool keeps_nothing = model_->scheduler.kv_policy == KvPolicy::kOff;
  if (keeps_nothing && flights_.empty() && scheduler_.pool().num_used() > 0) {
    return "KV is kept between steps";
  }
  return "";
}

// Tables are regions of consecutive blocks. No two overlap, and with the free ones they are the
// whole pool: freed together, they become what an empty allocator has.
std::string World::check_regions() const {
  if (std::string wrong = scheduler_.regions().find_inconsistency(); !wrong.empty()) return wrong;
  std::vector<bool> is_held(model_->num_blocks, false);
  int num_held = 0;
  for (const Sequence& seq : scheduler_.sequences()) {
    for (int i = 0; i < seq.table.size(); ++i) {
      const BlockId block = seq.table[i];
      if (block != seq.table[0] + i) return "a region is not contiguous" + at(seq, i);
      if (is_held[block]) return "two sequences hold one region" + at(seq, i);
      is_held[block] = true;
      ++num_held;
    }
  }
  if (scheduler_.regions().num_free() + num_held != model_->num_blocks) {
    return "free and held blocks of regions are not the pool";
  }
  BuddyAllocator all = scheduler_.regions();
  for (const Sequence& seq : scheduler_.sequences()) {
    if (seq.table.size() > 0) all.free(seq.table[0], seq.table.size());
  }
  if (std::string wrong = all.find_inconsistency(); !wrong.empty()) return "held: " + wrong;
  return "";
}

// Each reference count is the number of tables that hold the block.
std::string World::check_references() const {
  std::vector<int> held(model_->num_blocks, 0), held_by_host(model_->scheduler.num_host_blocks, 0);
  for (const Sequence& seq : scheduler_.sequences()) {
    for (BlockId block : seq.table.blocks()) ++held[block];
    for (BlockId block : seq.host_table.blocks()) ++held_by_host[block];
    if (seq.is_swapped != (seq.host_table.size() > 0)) return "a swapped sequence has no KV";
    if (seq.state == SequenceState::kUnused && seq.table.size() > 0) {
      return "a sequence that is gone holds blocks";
    }
    if (seq.state == SequenceState::kWaiting && seq.table.size() > 0) {
      return "a waiting sequence holds blocks";
    }
  }
  for (BlockId block = 0; block < model_->num_blocks; ++block) {
    if (held[block] != scheduler_.pool().ref_count(block)) {
      return "block " + std::to_string(block) + " has " +
             std::to_string(scheduler_.pool().ref_count(block)) + " references, but " +
             std::to_string(held[block]) + " tables hold it";
    }
  }
  for (BlockId block = 0; block < model_->scheduler.num_host_blocks; ++block) {
    if (held_by_host[block] != scheduler_.host_pool().ref_count(block)) {
      return "host block " + std::to_string(block) + " is miscounted";
    }
  }
  return "";
}

// The tokens of a sequence with those that are sampled and not committed yet.
std::vector<int32_t> World::tokens_of(SequenceId id) const {
  std::vector<int32_t> tokens = scheduler_.sequence(id).tokens;
  for (const Flight& flight : flights_) {
    for (size_t i = 0; i < flight.sampled.size(); ++i) {
      const bool is_its = flight.batch.sequences[i].id == id && flight.sampled[i] >= 0;
      if (is_its) tokens.push_back(flight.sampled[i]);
    }
  }
  return tokens;
}

std::string World::check_sequence(SequenceId id,
                                  const BlockTable& table,
                                  const std::vector<uint64_t>& kv) const {
  const Sequence& seq = scheduler_.sequence(id);
  const std::vector<int32_t> tokens = tokens_of(id);
  uint64_t content = root_hash(scheduler_.pool().salt(seq.root));
  // What the next step will copy into the table is where it comes from.
  std::vector<BlockId> blocks(table.blocks().begin(), table.blocks().end());
  std::ranges::copy(seq.copy_sources, blocks.begin());
  for (int i = 0; i < seq.num_computed; ++i) {
    content = next_content(content, tokens[i]);
    if (kv[kv_slot(blocks, i, model_->block_size)] != content) {
      return "a sequence reads KV that is not its own" + at(seq, i);
    }
  }
  return "";
}

// Every sequence finds its own KV through its table, and every cached block holds its key.
std::string World::check_contents() const {
  const BlockPool& pool = scheduler_.pool();
  const int block_size = model_->block_size;
  for (SequenceId id = 0; id < static_cast<int>(scheduler_.sequences().size()); ++id) {
    const Sequence& seq = scheduler_.sequence(id);
    std::string wrong;
    if (seq.state == SequenceState::kRunning) wrong = check_sequence(id, seq.table, kv_);
    if (seq.is_swapped) wrong = check_sequence(id, seq.host_table, host_kv_);
    if (!wrong.empty()) return wrong;
  }
  for (BlockId block = 0; block < model_->num_blocks; ++block) {
    if (!pool.has_content(block)) continue;
    const BlockId parent = pool.parent(block);
    uint64_t content = parent >= 0 ? kv_[int64_t{parent} * block_size + block_size - 1]
                                   : root_hash(pool.salt(parent));
    for (int i = 0; i < block_size; ++i) {
      content = next_content(content, pool.tokens(block)[i]);
      if (kv_[int64_t{block} * block_size + i] != content) {
        return "cached block " + std::to_string(block) + " does not hold its key's tokens";
      }
    }
  }
  return "";
}

std::string World::finish() const {
  World world = *this;
  for (int step = 0; step < 1000; ++step) {
    if (world.flights_.empty() && !world.scheduler_.has_work()) {
      return world.scheduler_.pool().num_used() == 0 ? "" : "blocks stay in use after the end";
    }
    while (world.can_launch()) {
      const size_t before = world.flights_.size();
      if (std::string wrong = world.apply({Kind::kLaunch, 0}); !wrong.empty()) return wrong;
      if (world.flights_.size() == before) break;
    }
    const bool waits = world.flights_.empty() && world.scheduler_.waits_until(world.now_);
    if (waits) {
      if (std::string wrong = world.apply({Kind::kWait}); !wrong.empty()) return wrong;
    }
    if (world.flights_.empty()) continue;
    if (std::string wrong = world.apply({Kind::kCommit}); !wrong.empty()) return wrong;
  }
  return "the requests do not finish";
}

}  // namespace quire
