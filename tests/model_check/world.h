// The shipping Scheduler, BlockPool and BlockTable as one value that can be copied, advanced by one
// action at a time and compared by hash: a node of the state graph that the model checker walks.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "engine/scheduler.h"

namespace quire {

struct ModelRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 1;
  std::string salt = {};
  bool wants_all_rows = false;
  int n = 1;
  int beam_width = 0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  std::optional<int> expected_output = {};
};

struct ModelCase {
  std::string name;
  int num_blocks = 4, block_size = 2;
  SchedulerConfig scheduler;
  int max_in_flight = 1;
  std::vector<ModelRequest> requests;  // added in this order
};

inline void PrintTo(const ModelCase& model, std::ostream* out) { *out << model.name; }

// Sampled tokens are 0 or kEnd: every way a sequence can end is a branch. A beam's candidates are
// 0, 2 and kEnd, with kEnd the likeliest or the least likely, and all of them likely, so that they
// displace another beam's, or unlikely.
inline constexpr int32_t kEnd = 1;

class World {
 public:
  // kWait: the clock goes to the end of a dynamic batch's window.
  enum class Kind : uint8_t { kAdd, kCancel, kLaunch, kCommit, kWait };
  struct Action {
    Kind kind;
    // The sequence to cancel, or, from the lowest bit on, what the sampling sequences find: one bit
    // for each, its token, or two for a beam.
    int32_t argument = 0;
    std::string to_string() const;
  };

  explicit World(const ModelCase& model);

  // Everything that can happen now but launches, which branch over what is sampled.
  void list_actions(std::vector<Action>* actions) const;
  // Computes what a step would sample: launch() may be told 2^n outcomes.
  bool can_launch() const { return static_cast<int>(flights_.size()) < model_->max_in_flight; }
  // What is wrong afterwards; empty when nothing is.
  std::string apply(const Action& action);
  // Bits of what the step launched last found.
  int num_outcome_bits() const { return num_outcome_bits_; }
  // No request can be added, none is left.
  bool is_over() const;
  uint64_t hash() const;
  // Lets everything that has been added finish: what prevents it, or empty.
  std::string finish() const;

 private:
  struct Flight {
    ScheduledBatch batch;
    std::vector<int32_t> sampled;   // of each sequence of the batch; -1: none
    std::vector<int32_t> outcomes;  // of each beam: which candidates it has; -1: none
  };

  // The running sequences by arrival and epoch, and how many groups wait.
  struct Lines {
    std::vector<std::pair<uint64_t, int>> running;
    int num_waiting = 0;
  };

  std::string launch(int32_t outcomes);
  Lines lines() const;
  std::string check_admission(const Lines& before);
  std::string check_batch_start(const Lines& before);
  void copy_blocks(const std::vector<BlockCopy>& copies,
                   const std::vector<uint64_t>& from,
                   std::vector<uint64_t>* to) const;
  std::string write_kv(const ScheduledBatch& batch);
  std::string commit();
  std::string check() const;
  std::string check_references() const;
  std::string check_policy() const;
  std::string check_regions() const;
  std::string check_sequence(SequenceId id,
                             const BlockTable& table,
                             const std::vector<uint64_t>& kv) const;
  std::string check_contents() const;
  std::vector<int32_t> tokens_of(SequenceId id) const;

  const ModelCase* model_;
  Scheduler scheduler_;
  std::deque<Flight> flights_;
  std::vector<uint64_t> kv_;         // [N, B]: a hash of the tokens up to and including this one
  std::vector<uint64_t> host_kv_;    // the same of the host pool
  std::vector<int32_t> last_token_;  // [slots], as a runner keeps it
  int next_request_ = 0;
  double now_ = 0;
  int num_joined_ = 0, most_join_ = 0;  // requests of the dynamic or static batch
  int num_outcome_bits_ = 0;
};

}  // namespace quire
