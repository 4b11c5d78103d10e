// The plan beside the peak of a process that fills its KV pool and computes its largest steps.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/quire_process.h"
#include "memory/synthetic_model.h"
#include "model/loader.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

// What the plan cannot know to the byte: which pages of the program's code and of the kernels'
// scratch are in memory, what the allocator keeps, the answers that wait to be written.
constexpr double kSlack = 4 << 20;

class PeakTest : public CliTest {
 protected:
  Json plan(const Arguments& flags) const {
    Arguments arguments = {"plan", model_, "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const Outcome outcome = quire(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return Json::parse(outcome.out);
  }

  // Prompts of `letters` letters, no two alike, until the KV pool has been filled; the first half
  // asks for the logits of all rows.
  void write_prompts(int64_t num_letters, int letters) {
    std::string text;
    uint64_t random = 1;
    int64_t count = std::max<int64_t>(num_letters / letters, 5);
    for (int64_t i = 0; i < count; ++i) {
      std::string prompt;
      for (int j = 0; j < letters; ++j) {
        random = mix64(random);
        prompt += static_cast<char>('a' + random % 26);
      }
      Json line = {{"id", i}, {"prompt", prompt}, {"max_tokens", 4}};
      if (i % 2 == 0) line["prompt_logprobs"] = 1;
      text += line.dump() + "\n";
    }
    write_file(path("in.jsonl"), text);
  }

  // The peak of a process, in bytes.
  int64_t peak_of(const Arguments& arguments) const {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int err = open(path("err").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const pid_t child = start(arguments, null, null, err);
    close(null);
    close(err);
    rusage usage{};
    int status = 0;
    EXPECT_EQ(wait4(child, &status, 0, &usage), child);
    EXPECT_EQ(status, 0) << read_file(path("err"));
    return int64_t{usage.ru_maxrss} * 1024;
  }

  // Of quire generate over the prompts.
  int64_t measure(const Arguments& flags) const {
    std::filesystem::remove(path("out.jsonl"));
    Arguments arguments = {"generate",
                           model_,
                           "-i",
                           path("in.jsonl"),
                           "-o",
                           path("out.jsonl"),
                           "--raw",
                           "--ignore-eos",
                           "--temperature",
                           "1",
                           "--top-p",
                           "0.9",
                           "--seed",
                           "1"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const int64_t peak = peak_of(arguments);
    EXPECT_EQ(read_file(path("out.jsonl")).find("\"error\""), std::string::npos);
    return peak;
  }

  void expect_the_planned_peak(Arguments flags, int letters, int64_t letters_per_token = 1) {
    flags.insert(flags.end(), {"--threads", "2"});
    const Json planned = plan(flags);
    const auto tokens = planned["kv"]["num_tokens"].get<int64_t>();
    write_prompts(tokens * letters_per_token * 9 / 8, letters);
    const auto expected = planned["peak_bytes"].get<double>();
    const auto peak = static_cast<double>(measure(flags));
    std::fprintf(stderr,
                 "planned %.1f MiB, peak %.1f MiB: %+.2f %%\n",
                 expected / (1 << 20),
                 peak / (1 << 20),
                 100 * (peak - expected) / expected);
    EXPECT_NEAR(peak, expected, 0.01 * expected + kSlack) << planned.dump(2);
  }

  // Loading reads the checkpoint piece by piece: what it takes for a moment is little.
  void expect_little_beside_the_weights() {
    const Arguments flags = {"--kv-cache-memory-bytes",
                             "4M",
                             "--max-num-seqs",
                             "1",
                             "--max-num-batched-tokens",
                             "32",
                             "--threads",
                             "2"};
    const auto weights = plan(flags)["bytes"]["weights"].get<int64_t>();
    Arguments arguments = {"run", model_, "--raw", "-p", "x", "-n", "1"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    EXPECT_LE(peak_of(arguments), weights + (64 << 20));
  }

  void expect_a_dummy_step_confirms(Arguments flags) {
    flags.insert(flags.end(), {"--threads", "2", "--confirm"});
    const Json confirmed = plan(flags)["confirmed"];
    const auto planned = confirmed["planned_bytes"].get<double>();
    EXPECT_NEAR(confirmed["measured_bytes"].get<double>(), planned, 0.01 * planned + kSlack);
    EXPECT_TRUE(confirmed["holds"].get<bool>());
  }

  std::string model_;
};

TEST_F(PeakTest, OfAGgufFileIsPlanned) {
  model_ = path("random.gguf");
  const std::string make = std::string(MAKE_RANDOM_GGUF) + " " + model_ + " 30m f16 > /dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0);
  expect_little_beside_the_weights();
  expect_the_planned_peak({"--kv-cache-memory-bytes", "12M", "--max-num-seqs", "8"}, 500);
  expect_the_planned_peak({"--kv-cache-memory-bytes",
                           "24M",
                           "--kv-cache-dtype",
                           "float32",
                           "--block-size",
                           "64",
                           "--max-num-seqs",
                           "32",
                           "--max-num-batched-tokens",
                           "1024",
                           "--activations",
                           "f32"},
                          700);
}

TEST_F(PeakTest, OfAHuggingFaceFolderIsPlanned) {
  model_ = path("synthetic");
  write_synthetic_model(model_, tiny());
  expect_little_beside_the_weights();
  expect_a_dummy_step_confirms({"--max-num-seqs", "16", "--kv-cache-memory-bytes", "16M"});
  // Steps that are larger than a sequence or the pool may be.
  expect_a_dummy_step_confirms(
      {"--max-model-len", "32", "--max-num-batched-tokens", "8192", "--max-num-seqs", "64"});
  expect_a_dummy_step_confirms(
      {"--kv-cache-memory-bytes", "256K", "--max-num-batched-tokens", "8192"});
  expect_the_planned_peak(
      {"--kv-cache-memory-bytes", "16M", "--max-num-seqs", "16", "--max-model-len", "1024"}, 500);
  expect_the_planned_peak({"--kv-cache-memory-bytes",
                           "24M",
                           "--kv-cache-dtype",
                           "bfloat16",
                           "--max-num-seqs",
                           "4",
                           "--max-num-batched-tokens",
                           "300"},
                          800);
}

class PeakOfTheDefaultModel : public PeakTest {
 protected:
  void SetUp() override {
    Result<std::filesystem::path> found = resolve_model("smollm2");
    if (!found.ok()) GTEST_SKIP() << "smollm2 is not here (scripts/get-model smollm2)";
    model_ = found->string();
  }
};

TEST_F(PeakOfTheDefaultModel, IsPlanned) {
  expect_little_beside_the_weights();
  expect_the_planned_peak({"--kv-cache-memory-bytes", "32M", "--max-num-seqs", "8"}, 1000, 2);
  expect_the_planned_peak({"--kv-cache-memory-bytes",
                           "48M",
                           "--kv-cache-dtype",
                           "float32",
                           "--max-num-seqs",
                           "32",
                           "--max-num-batched-tokens",
                           "300",
                           "--activations",
                           "int8"},
                          800,
                          2);
  // Prompts so long that their scores fill what is planned for them.
  expect_the_planned_peak(
      {"--kv-cache-memory-bytes", "48M", "--max-num-seqs", "4", "--fusion", "off"}, 2400, 2);
}

}  // namespace
}  // namespace quire
