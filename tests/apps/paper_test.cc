// quire bench paper: parameters, workloads, traces, and experiments in model-time whose outcome can
// be computed by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/paper/comparison.h"
#include "apps/paper/figures.h"
#include "apps/paper/measured.h"
#include "apps/paper/model_time.h"
#include "apps/paper/run.h"

namespace quire {
namespace {

PaperParameters parameters() {
  Result<PaperParameters> parsed = parse_paper_parameters(paper_parameters_json());
  EXPECT_TRUE(parsed.ok()) << parsed.status().message();
  return *parsed;
}

TEST(PaperParameters, AreThoseOfThePaper) {
  const CostModel cost = parameters().cost;
  EXPECT_EQ(cost.kv_bytes_per_token(), 819200);  // its section 3: 800 KB
  const PaperSizes sizes = ModelTimePlatform(cost).sizes();
  EXPECT_EQ(sizes.kv_tokens, 15728);  // its table 1: 15.7 K slots
  EXPECT_EQ(sizes.num_blocks(16), 983);
  EXPECT_EQ(paper_systems(sizes)[0].batch_size, 7);  // its figure 13: 7 requests of 2048 tokens
  const PaperSizes eighth = measured_sizes(sizes);
  EXPECT_EQ(eighth.max_model_len, 256);
  EXPECT_EQ(paper_systems(eighth)[0].batch_size, 7);
}

TEST(PaperParameters, RefusesWhatIsMissingByName) {
  Json json = Json::parse(paper_parameters_json());
  json["parameters"].erase("peak_flops");
  const auto refused = parse_paper_parameters(json.dump());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("peak_flops"), std::string::npos);
  EXPECT_FALSE(parse_paper_parameters("[]").ok());
  EXPECT_FALSE(parse_paper_parameters("{\"name\": \"x\", \"parameters\": 3}").ok());
}

// 21 rounds: the 6th and the 16th ratio enclose the median with 97.3 %, the 7th and 15th with 92 %.
TEST(PairedTimes, EnclosesTheMedianRatioByOrderStatistics) {
  std::vector<double> first, second;
  for (int i = 0; i < 21; ++i) {
    first.push_back(2);
    second.push_back(2.0 * ((i * 8) % 21 + 1));  // ratios 1 to 21, in no order
  }
  const PairedTimes times = paired_times(first, second);
  EXPECT_EQ(times.first, 2);
  EXPECT_EQ(times.second, 22);
  EXPECT_EQ(times.ratio, 11);
  EXPECT_EQ(times.ratio_low, 6);
  EXPECT_EQ(times.ratio_high, 16);
  const PairedTimes one = paired_times({2}, {3});
  EXPECT_EQ(one.ratio, 1.5);
  EXPECT_EQ(one.ratio_low, 1.5);
}

TEST(PairedTimes, MeasuresBothWaysInTurnsAfterOneUnmeasured) {
  std::string order;
  const auto way = [&](char name) {
    return [&order, name]() -> Result<double> {
      order += name;
      return name == 'a' ? 1.0 : 3.0;
    };
  };
  const auto times = compare_in_turns(3, way('a'), way('b'));
  ASSERT_TRUE(times.ok());
  EXPECT_EQ(order, "baabbaab");
  EXPECT_EQ(times->ratio, 3);
  const auto failed = compare_in_turns(
      3, way('a'), []() -> Result<double> { return invalid_argument("no such model"); });
  EXPECT_FALSE(failed.ok());
}

double mean(const std::vector<PaperRequest>& requests, int PaperRequest::* length) {
  double sum = 0;
  for (const PaperRequest& request : requests) sum += request.*length;
  return sum / static_cast<double>(requests.size());
}

TEST(PaperWorkload, HasThePapersMeansAndTheRateAsked) {
  const PaperParameters p = parameters();
  const auto sharegpt = draw_requests(p.sharegpt, 10, 10000, 2048, 1);
  EXPECT_NEAR(mean(sharegpt, &PaperRequest::prompt), 161.31, 3);
  EXPECT_NEAR(mean(sharegpt, &PaperRequest::output), 337.99, 8);  // long ones are drawn again
  EXPECT_NEAR(static_cast<double>(sharegpt.size()), 100000, 1000);
  const auto alpaca = draw_requests(p.alpaca, 10, 10000, 2048, 1);
  EXPECT_NEAR(mean(alpaca, &PaperRequest::prompt), 19.31, 0.2);
  EXPECT_NEAR(mean(alpaca, &PaperRequest::output), 58.45, 1);
}

TEST(PaperWorkload, ReadsAnAzureTrace) {
  const auto trace = parse_azure_trace(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
      "2023-11-16 18:15:46.5000000,374,44\r\n"
      "2023-11-16 18:15:46.7500000,5000,44\n"
      "2023-11-16 18:16:16.5000000,396,109\n",
      "t.csv");
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  ASSERT_EQ(trace->size(), 3u);
  EXPECT_DOUBLE_EQ((*trace)[2].arrival, 30);
  EXPECT_EQ((*trace)[2].prompt, 396);
  EXPECT_EQ((*trace)[2].output, 109);
  const auto scaled = scale_trace(*trace, 4, 100, 2048);  // without the one that is too long
  ASSERT_EQ(scaled.size(), 2u);
  EXPECT_DOUBLE_EQ(scaled[1].arrival, 0.5);
}

TEST(PaperWorkload, RefusesADamagedTraceByItsLine) {
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  for (const char* line : {"2023-11-16 18:15:46.5,374",
                           "2023-11-16 18:15:46.5,374,44,1",
                           "2023-11-16 25:15:46.5,374,44",
                           "2023-11-16 18:15:46.5,-1,44",
                           "2023-11-16 18:15:46.5,9999999999,44",
                           "2023-11-16 18:15:nan,3,44",
                           "x",
                           ",,"}) {
    const auto refused =
        parse_azure_trace(header + "2023-11-16 18:15:46.5,374,44\n" + line + "\n", "t.csv");
    ASSERT_FALSE(refused.ok()) << line;
    EXPECT_NE(refused.status().message().find("t.csv, line 3"), std::string::npos) << line;
  }
  EXPECT_FALSE(parse_azure_trace("a,b,c\n", "t.csv").ok());
  EXPECT_FALSE(parse_azure_trace("", "t.csv").ok());
  EXPECT_FALSE(parse_azure_trace(header, "t.csv").ok());
}

PaperOutcome outcome_of(const CostModel& cost,
                        const PaperRun& run,
                        std::span<const PaperRequest> requests) {
  const Result<PaperOutcome> outcome = run_experiment(ModelTimePlatform(cost), run, requests);
  EXPECT_TRUE(outcome.ok()) << outcome.status().message();
  return *outcome;
}

// One request: a prefill step and output - 1 decode steps.
TEST(PaperRun, ChargesAStepByTheCostModel) {
  const CostModel c = parameters().cost;
  const std::vector<PaperRequest> one = {{.arrival = 0, .prompt = 100, .output = 3}};
  PaperRun run{.system = orca_oracle_system()};
  const PaperOutcome outcome = outcome_of(c, run, one);
  const double weights = 26e9 / (c.memory_bandwidth * c.weight_read_efficiency);
  const double token = 819200 / (c.memory_bandwidth * c.kv_read_efficiency);
  const double expected = 3 * (weights + c.step_seconds) + (100 + 101 + 102) * token;
  EXPECT_NEAR(outcome.seconds, expected, 1e-9);
  EXPECT_NEAR(outcome.normalised_latency, expected / 3, 1e-9);
  EXPECT_NEAR(outcome.mean_running, 1, 1e-9);
  run.system = paged_system();
  EXPECT_NEAR(
      outcome_of(c, run, one).seconds, expected + 303 * token * c.paged_overhead_tokens / 16, 1e-9);
}

TEST(PaperRun, RequestLevelBatchesAnswerAtTheirEnd) {
  const CostModel c = parameters().cost;
  const std::vector<PaperRequest> two = {{.arrival = 0, .prompt = 10, .output = 1},
                                         {.arrival = 0, .prompt = 10, .output = 100}};
  PaperRun run{.system = paper_systems(ModelTimePlatform(c).sizes())[0]};
  const PaperOutcome batch = outcome_of(c, run, two);
  EXPECT_NEAR(batch.normalised_latency, (batch.seconds + batch.seconds / 100) / 2, 1e-9);
  run.system = orca_oracle_system();
  EXPECT_LT(outcome_of(c, run, two).normalised_latency, 0.1);
}

TEST(PaperRun, MaxHoldsSevenRequestsAndWastesWhatThePaperSays) {
  const PaperParameters p = parameters();
  const PaperRun run{.system = paper_systems(ModelTimePlatform(p.cost).sizes())[2],
                     .measures_memory = true,
                     .stop_at = 120};
  const auto requests = draw_requests(p.sharegpt, 4, 120, 2048, 1);
  const PaperOutcome outcome = outcome_of(p.cost, run, requests);
  const KvShares& kv = outcome.kv;
  EXPECT_NEAR(kv.tokens + kv.reserved + kv.internal + kv.external + kv.ended + kv.free, 1, 1e-9);
  EXPECT_NEAR(kv.external, (983 - 7 * 128) / 983.0, 1e-9);
  EXPECT_NEAR(outcome.mean_running, 7, 0.3);
}

TEST(PaperRun, SharingSavesBlocksAndApartItDoesNot) {
  const CostModel c = parameters().cost;
  PaperRun run{.system = paged_system(), .measures_memory = true};
  const std::vector<PaperRequest> alone = {{.arrival = 0, .prompt = 160, .output = 2}};
  EXPECT_EQ(outcome_of(c, run, alone).blocks_saved, 0);
  const std::vector<PaperRequest> four = {{.arrival = 0, .prompt = 160, .output = 200, .n = 4}};
  EXPECT_GT(outcome_of(c, run, four).blocks_saved, 0.3);
  const std::vector<PaperRequest> beams = {
      {.arrival = 0, .prompt = 160, .output = 200, .beam_width = 4}};
  const PaperOutcome searched = outcome_of(c, run, beams);
  EXPECT_EQ(searched.num_finished, 1);
  EXPECT_GT(searched.blocks_saved, 0.6);
}

void run_every_figure(PaperContext& context) {
  for (int i = 0; i < 60; ++i) {
    context.trace.push_back({.arrival = i * 0.1, .prompt = 20 + i, .output = 10 + i % 7});
  }
  for (const PaperFigure& figure : paper_figures()) {
    if (figure.run == nullptr) continue;
    EXPECT_TRUE(figure.run(context).is_object()) << figure.name;
    EXPECT_TRUE(context.failure().ok()) << figure.name << ": " << context.failure().message();
  }
}

TEST(PaperFigures, EveryFigureRunsOnAShortTrace) {
  const PaperParameters p = parameters();
  const ModelTimePlatform platform(p.cost);
  PaperContext context(platform, p);
  context.seconds = 2;
  run_every_figure(context);
}

// The numbers under "ratio", wherever they stand.
void collect_ratios(const Json& json, std::vector<double>* ratios) {
  if (json.is_object() && json.contains("ratio")) ratios->push_back(json["ratio"].get<double>());
  if (!json.is_structured()) return;
  for (const Json& part : json) collect_ratios(part, ratios);
}

TEST(PaperFigures, EveryComparisonRunsOnATinyModel) {
  const ComparisonSettings settings{
      .model = QUIRE_TESTDATA "/golden/tiny/llama_gqa", .num_threads = 1, .rounds = 1};
  const std::map<std::string, size_t> cases = {
      {"paged-overhead", 4 * 5}, {"fusion", 3 * 5}, {"async-tokenize", 2 * 2}};
  for (const PaperFigure& figure : paper_figures()) {
    if (figure.compare == nullptr) continue;
    const Result<Json> result = figure.compare(settings);
    ASSERT_TRUE(result.ok()) << figure.name << ": " << result.status().message();
    std::vector<double> ratios;
    collect_ratios(*result, &ratios);
    EXPECT_EQ(ratios.size(), cases.at(figure.name)) << figure.name << ": " << result->dump();
    for (const double ratio : ratios) EXPECT_GT(ratio, 0) << figure.name;
  }
}

std::unique_ptr<MeasuredPlatform> tiny_model() {
  const PaperSizes sizes{.max_model_len = 64,
                         .max_num_seqs = 8,
                         .max_num_batched_tokens = 32,
                         .block_size = 4,
                         .kv_tokens = 192,
                         .length_scale = 8};
  auto platform = MeasuredPlatform::load(
      QUIRE_TESTDATA "/golden/tiny/llama_gqa", 1, sizes, "a text of a few words to ask about");
  EXPECT_TRUE(platform.ok()) << platform.status().message();
  return std::move(*platform);
}

TEST(MeasuredPlatform, RunsEveryFigure) {
  const PaperParameters p = parameters();
  const auto platform = tiny_model();
  PaperContext context(*platform, p);
  context.num_requests = 6;
  run_every_figure(context);
}

TEST(MeasuredPlatform, ComputesEveryRequestInEverySystem) {
  const auto platform = tiny_model();
  std::vector<PaperRequest> requests;
  for (int i = 0; i < 10; ++i) requests.push_back({.prompt = 3 + i, .output = 5 + 3 * i});
  for (const PaperSystem& system : paper_systems(platform->sizes())) {
    const auto outcome = run_experiment(*platform, {.system = system}, requests);
    ASSERT_TRUE(outcome.ok()) << outcome.status().message();
    EXPECT_EQ(outcome->num_finished, 10) << system.name;
    EXPECT_EQ(outcome->stats.num_generated_tokens, 10 * 5 + 3 * 45) << system.name;
    EXPECT_GT(outcome->seconds, 0) << system.name;
  }
  for (PaperRequest& request : requests) request.n = 3;
  const auto shared =
      run_experiment(*platform, {.system = paged_system(), .measures_memory = true}, requests);
  ASSERT_TRUE(shared.ok());
  EXPECT_GT(shared->blocks_saved, 0.1);
}

TEST(MeasuredPlatform, RefusesAModelWhoseContextIsTooShort) {
  const auto refused = MeasuredPlatform::load(
      QUIRE_TESTDATA "/golden/tiny/llama_gqa", 1, {.max_model_len = 1 << 20}, "a text");
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("1048576"), std::string::npos);
}

}  // namespace
}  // namespace quire
