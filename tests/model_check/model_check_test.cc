// Walks every interleaving of add, schedule, commit, cancel and of what the model may sample, over
// pools of a few blocks, with the shipping Scheduler, BlockPool and BlockTable, and checks the
// invariants in every state. QUIRE_MODEL_CHECK_STATES sets the most distinct states of a case.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "world.h"

namespace quire {
namespace {

// A set of 64-bit hashes. At 10^7 states the chance that any two collide is 3e-6.
class HashSet {
 public:
  explicit HashSet(int64_t capacity) {
    size_t size = 1024;
    while (size < static_cast<size_t>(capacity) * 2) size *= 2;
    slots_.assign(size, 0);
  }
  bool insert(uint64_t hash) {
    if (hash == 0) hash = 1;
    for (size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i] == hash) return false;
      if (slots_[i] != 0) continue;
      slots_[i] = hash;
      ++size_;
      return true;
    }
  }
  int64_t size() const { return size_; }

 private:
  std::vector<uint64_t> slots_;
  int64_t size_ = 0;
};

// Depth first. Stops at the first state in which something is wrong: trace() says how it came
// about.
class Explorer {
 public:
  Explorer(const ModelCase& model, int64_t max_states)
      : max_states_(max_states), seen_(max_states), start_(model) {}

  std::string run() {
    visit(start_);
    return wrong_;
  }
  int64_t num_states() const { return seen_.size(); }
  bool complete() const { return seen_.size() < max_states_; }
  std::string trace() const {
    std::string text;
    for (const World::Action& action : path_) text += action.to_string() + " ";
    return text;
  }

 private:
  void visit(const World& world) {
    if (seen_.size() >= max_states_ || !seen_.insert(world.hash())) return;
    if (seen_.size() % kFinishEvery == 0) wrong_ = world.finish();
    std::vector<World::Action> actions;
    world.list_actions(&actions);
    for (const World::Action& action : actions) {
      if (!wrong_.empty()) return;
      follow(world, action);
    }
    if (!world.can_launch()) return;
    int32_t num_outcomes = 1;
    for (int32_t outcome = 0; outcome < num_outcomes && wrong_.empty(); ++outcome) {
      num_outcomes = 1 << follow(world, {World::Kind::kLaunch, outcome});
    }
  }

  // Bits of what was sampled.
  int follow(const World& world, const World::Action& action) {
    path_.push_back(action);
    World next = world;
    wrong_ = next.apply(action);
    if (wrong_.empty()) visit(next);
    if (wrong_.empty()) path_.pop_back();
    return next.num_outcome_bits();
  }

  static constexpr int kFinishEvery = 16;
  int64_t max_states_;
  HashSet seen_;
  World start_;
  std::vector<World::Action> path_;
  std::string wrong_;
};

SchedulerConfig limits(int max_num_seqs, int max_num_batched_tokens, bool prefix_caching = true) {
  SchedulerConfig config;
  config.max_num_seqs = max_num_seqs;
  config.max_num_batched_tokens = max_num_batched_tokens;
  config.max_model_len = 8;
  config.max_logit_rows = max_num_seqs + 1;
  config.enable_prefix_caching = prefix_caching;
  return config;
}

SchedulerConfig swapping(SchedulerConfig config, int num_host_blocks) {
  config.preemption_mode = PreemptionMode::kSwap;
  config.num_host_blocks = num_host_blocks;
  return config;
}

ModelRequest beams(std::vector<int32_t> prompt,
                   int max_tokens,
                   EarlyStopping early_stopping = EarlyStopping::kFalse) {
  ModelRequest request{std::move(prompt), max_tokens};
  request.n = request.beam_width = 2;
  request.early_stopping = early_stopping;
  return request;
}

SchedulerConfig policy(KvPolicy kv_policy, SchedulerConfig config) {
  config.kv_policy = kv_policy;
  config.enable_prefix_caching = false;
  return config;
}

SchedulerConfig batches(Batching batching, SchedulerConfig config) {
  config.batching = batching;
  config.batch_size = 2;
  config.batch_window = 1;
  return config;
}

// What the papers compare with (engine/policies.h). Regions of all sizes fit beside each other, or
// just do not.
std::vector<ModelCase> policy_cases() {
  using enum KvPolicy;
  using enum Batching;
  const std::vector<ModelRequest> three = {{{2, 2, 2}, 3}, {{2, 2, 2, 0, 2}, 3}, {{2, 2}, 4}};
  // With three tokens a step the group's prompt takes two of them.
  const std::vector<ModelRequest> answers = {{{2, 2, 2, 0}, 2, "", false, 2}, {{2, 2, 2}, 2}};
  std::vector<ModelRequest> told = three;
  told[0].expected_output = 1;
  told[1].expected_output = 3;
  told[2].expected_output = 2;
  std::vector<ModelRequest> four = three;
  four.push_back({{2}, 1});
  return {
      {"Max", 8, 2, policy(kMax, limits(3, 4)), 2, three},
      {"MaxTwoAnswers", 12, 2, policy(kMax, limits(3, 3)), 2, answers},
      {"Pow2", 7, 2, policy(kPow2, limits(3, 4)), 2, told},
      {"Oracle", 7, 2, policy(kOracle, limits(3, 4)), 2, told},
      {"OracleTwoAnswers", 10, 2, policy(kOracle, limits(3, 3)), 2, answers},
      {"Grow", 8, 2, policy(kGrow, limits(3, 4)), 2, three},
      {"GrowTwoAnswers", 12, 2, policy(kGrow, limits(3, 3)), 2, answers},
      {"Off", 6, 2, policy(kOff, limits(3, 8)), 2, three},
      {"OffTwoAnswers", 6, 2, policy(kOff, limits(3, 8)), 2, answers},
      {"Static", 4, 2, batches(kStatic, limits(3, 4)), 2, four},
      {"StaticTwoAnswers", 5, 2, batches(kStatic, limits(3, 3, false)), 2, answers},
      {"StaticSwap", 4, 2, batches(kStatic, swapping(limits(3, 4), 2)), 2, four},
      {"StaticBeams", 5, 2, batches(kStatic, limits(3, 4)), 1, {beams({2, 2}, 2), {{2, 2}, 2}}},
      {"StaticMax", 8, 2, batches(kStatic, policy(kMax, limits(3, 4))), 2, four},
      {"StaticGrow", 8, 2, batches(kStatic, policy(kGrow, limits(3, 4))), 2, four},
      {"StaticOff", 6, 2, batches(kStatic, policy(kOff, limits(3, 8))), 2, four},
      {"Dynamic", 4, 2, batches(kDynamic, limits(3, 4)), 2, four},
      {"DynamicMax", 8, 2, batches(kDynamic, policy(kMax, limits(3, 4))), 1, three},
      {"DynamicGrow", 8, 2, batches(kDynamic, policy(kGrow, limits(3, 4))), 2, three},
  };
}

// Prompts share prefixes of one and two blocks, and outputs can make one request's tokens another's
// prompt.
std::vector<ModelCase> cases() {
  const std::vector<ModelRequest> sharing = {{{2, 2, 2}, 3}, {{2, 2, 2, 0, 2}, 3}, {{2, 2}, 4}};
  const std::vector<ModelRequest> mixed = {
      {{2, 2, 2}, 2, "salt"}, {{2, 2, 2}, 3}, {{2, 2, 3, 0}, 2, "", true}};
  std::vector<ModelRequest> four = sharing;
  four.push_back({{2, 2, 2, 0}, 2});
  return {
      {"Sharing", 4, 2, limits(3, 4), 1, sharing},
      {"SharingOverlapped", 4, 2, limits(3, 4), 2, sharing},
      {"NoPrefixCache", 4, 2, limits(3, 4, false), 2, sharing},
      {"SaltsAndPromptLogits", 4, 2, limits(2, 3), 2, mixed},
      {"OneTokenAStep", 7, 1, limits(3, 1), 2, sharing},
      {"TwoAnswers", 4, 2, limits(3, 4), 2, {{{2, 2, 2}, 2, "", false, 2}, {{2, 2, 2}, 2}}},
      {"TwoAnswersUncached",
       5,
       2,
       limits(3, 3, false),
       2,
       {{{2, 2, 2, 0}, 3, "", false, 2}, {{2, 2, 2}, 2, "", false, 2}}},
      {"ThreeAnswers",
       8,
       2,
       limits(3, 3),
       1,
       {{{2, 2, 2}, 3, "", true, 3}, {{2, 2}, 2, "", false, 2}, {{2, 2, 2, 0}, 2}}},
      {"Swap", 4, 2, swapping(limits(3, 4), 2), 2, sharing},
      {"SwapTwoAnswers",
       5,
       2,
       swapping(limits(3, 4), 4),
       2,
       {{{2, 2, 2}, 3}, {{2, 2, 2}, 3, "", false, 2}}},
      {"SwapUncached",
       5,
       2,
       swapping(limits(3, 3, false), 3),
       2,
       {{{2, 2, 2, 0}, 3, "", false, 2}, {{2, 2, 2}, 3, "", false, 2}}},
      {"SwapThreeAnswers",
       7,
       2,
       swapping(limits(4, 3), 4),
       2,
       {{{2, 2, 2}, 3, "", false, 3}, {{2, 2}, 2, "", false, 2}, {{2, 2, 2, 0}, 3}}},
      {"FourRequests", 4, 2, limits(3, 3), 2, four},
      {"Beams", 4, 2, limits(2, 4), 1, {beams({2, 2}, 3), beams({2, 2, 2}, 2)}},
      {"BeamsOverlapped", 4, 2, limits(3, 3), 2, {beams({2, 2, 2}, 2), {{2, 2, 2}, 2}}},
      {"BeamsUncached", 4, 2, limits(3, 3, false), 2, {{{2, 2}, 2}, beams({2, 2, 2}, 2)}},
      {"BeamsPreemptedBeforeOthers",
       4,
       2,
       limits(3, 4),
       2,
       {{{2, 2, 2}, 2}, beams({2, 2}, 3, EarlyStopping::kTrue)}},
      {"BeamsPreemptedInTheirPrompt",
       5,
       2,
       limits(3, 2),
       2,
       {{{2, 2}, 6}, beams({3, 3, 3, 3, 3}, 2)}},
      {"BeamsOneTokenABlock", 6, 1, limits(4, 2), 2, {{{2, 2}, 2}, beams({2, 2}, 3)}},
      {"BeamsLong", 6, 2, limits(3, 3), 2, {{{2, 2, 2}, 2}, beams({2, 2, 2}, 4)}},
      {"SwapBeamsLong",
       6,
       2,
       swapping(limits(4, 4), 4),
       2,
       {{{2, 2, 2, 0}, 4}, beams({2, 2, 2}, 4)}},
      {"SwapTwoBeamSearches",
       5,
       2,
       swapping(limits(4, 4), 4),
       2,
       {beams({2, 2, 2}, 3), beams({2, 2}, 3, EarlyStopping::kTrue)}},
      {"TwoBeamSearches", 5, 2, limits(4, 3), 2, {beams({2, 2, 2}, 2), beams({2, 2, 2, 0}, 2)}},
      {"SwapBeams", 4, 2, swapping(limits(3, 4), 2), 2, {{{2, 2, 2}, 2}, beams({2, 2, 2}, 2)}},
      {"SwapBeamsUncached",
       5,
       2,
       swapping(limits(4, 3, false), 3),
       2,
       {{{2, 2, 2}, 3}, beams({2, 2, 2}, 3, EarlyStopping::kNever)}},
  };
}

class ModelCheck : public ::testing::TestWithParam<ModelCase> {};

TEST_P(ModelCheck, EveryReachableStateIsSound) {
  const char* wanted = std::getenv("QUIRE_MODEL_CHECK_STATES");
  Explorer explorer(GetParam(), wanted != nullptr ? std::atoll(wanted) : 320000);
  EXPECT_EQ(explorer.run(), "") << "after: " << explorer.trace();
  std::printf("%s: %lld states%s\n",
              GetParam().name.c_str(),
              static_cast<long long>(explorer.num_states()),
              explorer.complete() ? ", all there are" : "");
}

INSTANTIATE_TEST_SUITE_P(Cases, ModelCheck, ::testing::ValuesIn(cases()), [](const auto& info) {
  return info.param.name;
});
INSTANTIATE_TEST_SUITE_P(Policies,
                         ModelCheck,
                         ::testing::ValuesIn(policy_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace quire
