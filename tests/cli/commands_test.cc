// What each command prints, and what happens when nobody can read it.
#include <nlohmann/json.hpp>
#include <set>

#include "cli/quire_process.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

class CommandTest : public CliTest {
 protected:
  // The JSON object that a command prints, after checking its keys.
  Json json_of(const Arguments& arguments, const std::vector<std::string>& keys) const {
    const Outcome outcome = quire(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json json = Json::parse(outcome.out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << outcome.out;
    for (const std::string& key : keys) EXPECT_TRUE(json.contains(key)) << key;
    return json;
  }
};

TEST_F(CommandTest, EveryCommandHasHelp) {
  EXPECT_NE(quire({"--help"}).out.find("Exit codes: 0 ok"), std::string::npos);
  for (const Arguments& command : {Arguments{},
                                   {"run"},
                                   {"chat"},
                                   {"generate"},
                                   {"bench"},
                                   {"bench", "model"},
                                   {"bench", "paper"},
                                   {"perplexity"},
                                   {"info"},
                                   {"plan"},
                                   {"tokenize"},
                                   {"detokenize"},
                                   {"devices"},
                                   {"completion"}}) {
    Arguments arguments = command;
    arguments.push_back("--help");
    const Outcome outcome = quire(arguments);
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_NE(outcome.out.find("Usage: quire" + std::string(command.empty() ? "" : " ")),
              std::string::npos)
        << outcome.out;
    if (!command.empty()) {
      EXPECT_NE(outcome.out.find(command.back() + " "), std::string::npos) << outcome.out;
    }
  }
  EXPECT_EQ(quire({"--version"}).exit_code, 0);
}

TEST_F(CommandTest, PlanPrintsEveryByteOfThePeak) {
  const Arguments flags = {"--kv-cache-memory-bytes", "1M", "--max-num-seqs", "4"};
  Arguments arguments = {"plan", tiny(), "--json"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const Json plan = json_of(arguments, {"fits", "bytes", "weights", "kv", "sequences"});
  int64_t sum = 0;
  for (const auto& [name, bytes] : plan["bytes"].items()) sum += bytes.get<int64_t>();
  EXPECT_EQ(plan["peak_bytes"], sum);
  EXPECT_EQ(plan["kv"]["bytes_per_token"], 256);
  EXPECT_EQ(plan["kv"]["num_blocks"], 256);
  EXPECT_EQ(plan["sequences"].back(),
            Json({{"tokens", 256}, {"kv_pool_holds", 16}, {"run_at_once", 4}}));
  arguments[2] = "--enable-prefix-caching";
  const Outcome text = quire(arguments);
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"embedding", "activations", "KV pool", "total", "available"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part << "\n" << text.out;
  }
}

TEST_F(CommandTest, PlanPrintsAlsoWhatDoesNotFit) {
  const Outcome outcome = quire({"plan",
                                 tiny(),
                                 "--preemption-mode",
                                 "swap",
                                 "--swap-space",
                                 "30T",
                                 "--kv-cache-memory-bytes",
                                 "1M",
                                 "--json"});
  EXPECT_EQ(outcome.exit_code, 6);
  EXPECT_NE(outcome.err.find("lower --swap-space to at most"), std::string::npos) << outcome.err;
  const Json plan = Json::parse(outcome.out);
  EXPECT_EQ(plan["fits"], false);
  EXPECT_NE(plan["refusal"].get<std::string>().find("are available"), std::string::npos);
  EXPECT_EQ(plan["bytes"]["kv_pool"], 256 * 4096);
}

TEST_F(CommandTest, RunPrintsTheAnswerAndOneLineOfFigures) {
  const Outcome run = quire({"run", tiny(), "-p", "Hello", "-n", "5", "--temperature", "0"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_TRUE(run.out.ends_with("\n"));
  EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  for (const char* part : {"prompt ",
                           "prefill",
                           "generated 5 tokens",
                           "decode",
                           "KV blocks",
                           "KV pool",
                           "MiB",
                           "peak memory"}) {
    EXPECT_NE(run.err.find(part), std::string::npos) << part << " in " << run.err;
  }
}

TEST_F(CommandTest, AnAnswerOfNoTokensHasNoNegativeSpeed) {
  const Outcome run = quire({"run", tiny(), "-p", "Hello", "-n", "0"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.err.find("generated 0 tokens"), std::string::npos) << run.err;
  EXPECT_EQ(run.err.find("tok/s"), std::string::npos) << run.err;
  const Json json = json_of({"run", tiny(), "-p", "Hello", "-n", "0", "--json"}, {"timings"});
  EXPECT_EQ(json["timings"]["decode_tokens_per_second"], 0);
}

TEST_F(CommandTest, RunGivesSeveralAnswersToOnePrompt) {
  const Arguments command = {
      "run", tiny(), "-p", "Hello", "-n", "5", "--temperature", "1", "--seed", "1"};
  const auto with = [&](const Arguments& more) {
    Arguments all = command;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Json json = json_of(with({"--n", "3", "--json"}), {"choices", "usage"});
  ASSERT_EQ(json["choices"].size(), 3u);
  EXPECT_EQ(json["choices"][2]["index"], 2);
  EXPECT_NE(json["choices"][0]["token_ids"], json["choices"][1]["token_ids"]);
  EXPECT_EQ(json["usage"]["completion_tokens"], 15);
  const Json best = json_of(with({"--n", "2", "--best-of", "6", "--json"}), {"choices"});
  EXPECT_GE(best["choices"][0]["cumulative_logprob"], best["choices"][1]["cumulative_logprob"]);
  const std::string out = quire(with({"--n", "2"})).out;
  EXPECT_TRUE(out.starts_with("[1 of 2]\n")) << out;
  EXPECT_NE(out.find("\n[2 of 2]\n"), std::string::npos) << out;
}

TEST_F(CommandTest, RunSearchesWithBeamsAndGivesTheBestAnswersWithTheirScores) {
  const auto with = [&](const Arguments& more) {
    Arguments all = {"run", tiny(), "--raw", "-p", "hello", "-n", "6", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return Json::parse(quire(all).out);
  };
  const Json all = with({"--beam-width", "3", "--n", "3"});
  ASSERT_EQ(all["choices"].size(), 3u);
  EXPECT_GE(all["choices"][0]["score"], all["choices"][1]["score"]);
  EXPECT_GE(all["choices"][1]["score"], all["choices"][2]["score"]);
  EXPECT_NE(all["choices"][0]["token_ids"], all["choices"][1]["token_ids"]);
  EXPECT_EQ(with({"--beam-width", "3"})["token_ids"], all["choices"][0]["token_ids"]);
  EXPECT_EQ(with({"--beam-width", "3", "--early-stopping", "never"}).contains("score"), true);
  const Json sums = with({"--beam-width", "3", "--length-penalty", "0"});
  EXPECT_LT(sums["score"], all["choices"][0]["score"]);
}

TEST_F(CommandTest, RunReadsItsPromptFromAFileOrStandardInput) {
  write_file(path("prompt"), "grüß dich");
  const auto text = [&](const Arguments& more, const std::string& input) {
    Arguments all = {"run", tiny(), "--raw", "-n", "5", "--temperature", "0", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return Json::parse(quire(all, input).out)["prompt_token_ids"];
  };
  const Json expected = text({"-p", "grüß dich"}, "");
  EXPECT_EQ(text({"-f", path("prompt")}, ""), expected);
  EXPECT_EQ(text({"-p", "-"}, "grüß dich"), expected);
  EXPECT_EQ(text({"-f", "-"}, "grüß dich"), expected);
}

TEST_F(CommandTest, JsonResultsHaveTheirKeys) {
  const Json run =
      json_of({"run", tiny(), "-p", "Hi", "-n", "3", "--ignore-eos", "--logprobs", "2", "--json"},
              {"text",
               "token_ids",
               "finish_reason",
               "stop_reason",
               "logprobs",
               "prompt_token_ids",
               "usage",
               "timings",
               "load_seconds"});
  EXPECT_EQ(run["finish_reason"], "length");
  EXPECT_EQ(run["token_ids"].size(), 3U);
  EXPECT_EQ(run["logprobs"].size(), 3U);
  EXPECT_EQ(run["usage"]["completion_tokens"], 3);
  json_of({"info", tiny(), "--json"},
          {"path",
           "name",
           "licence",
           "architecture",
           "parameters",
           "context_length",
           "layers",
           "kv_bytes_per_token",
           "tensors",
           "tokenizer",
           "chat_template"});
  const Json tokens =
      json_of({"tokenize", tiny(), "-p", "Hello", "--json"}, {"token_ids", "tokens", "count"});
  EXPECT_EQ(tokens["token_ids"].size(), tokens["count"]);
  json_of({"devices", "--json"},
          {"cpu",
           "cores_in_affinity_mask",
           "cgroup_cpu_quota",
           "threads",
           "isa_levels",
           "memory_bytes",
           "available_memory_bytes"});
}

TEST_F(CommandTest, DevicesShowsTheCpuQuota) {
  EXPECT_NE(quire({"devices"}).out.find("cgroup quota"), std::string::npos);
}

TEST_F(CommandTest, PerplexityAgainstItsOwnLogitsHasNoDivergence) {
  write_file(path("text"), std::string(300, 'a') + " some more words");
  const std::string base = path("base.safetensors");
  const Outcome first =
      quire({"perplexity", tiny(), "-f", path("text"), "--context", "64", "--save-kl-base", base});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_NE(first.out.find("perplexity "), std::string::npos);
  EXPECT_NE(first.err.find("KV pool: "), std::string::npos) << first.err;
  const Json again = json_of({"perplexity", tiny(), "--kl-base", base, "--json"},
                             {"perplexity", "positions", "mean_kl", "top1_agreement"});
  EXPECT_EQ(again["mean_kl"], 0);
  EXPECT_EQ(again["top1_agreement"], 1);
}

TEST_F(CommandTest, BenchMeasuresEachCaseAndWritesJson) {
  const std::string file = path("bench.json");
  const Outcome bench = quire({"bench",
                               "model",
                               tiny(),
                               "--prompt-tokens",
                               "8",
                               "--generate-tokens",
                               "2",
                               "--batch",
                               "1,2",
                               "--depth",
                               "0,16",
                               "--repeat",
                               "1",
                               "--json",
                               file});
  EXPECT_EQ(bench.exit_code, 0) << bench.err;
  EXPECT_NE(bench.err.find("KV pool: "), std::string::npos) << bench.err;
  const Json json = Json::parse(read_file(file));
  EXPECT_EQ(json["results"].size(), 6U);  // (prefill, decode x 2) x 2 depths
  EXPECT_TRUE(json["limits"].contains("read_gbps"));
}

TEST_F(CommandTest, TokenizeAndDetokenizeAreInverse) {
  const std::string text = "Hello, wörld 好 🙂";
  const Outcome ids = quire({"tokenize", tiny(), "-p", text});
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(quire({"detokenize", tiny()}, ids.out).out, text + "\n");
}

TEST_F(CommandTest, CompletionScriptsAreAcceptedByTheirShell) {
  const Outcome checked = shell("\"$QUIRE\" completion bash | bash -n");
  EXPECT_EQ(checked.exit_code, 0) << checked.err;
  for (const char* name : {"zsh", "fish"}) {
    EXPECT_EQ(quire({"completion", name}).exit_code, 0);
  }
}

TEST_F(CommandTest, CompletionOffersValuesAndCachedModels) {
  std::filesystem::create_directories(folder_ / "cache/quire/models");
  write_file(folder_ / "cache/quire/models/small.gguf", "");
  write_file(folder_ / "cache/quire/models/other.gguf", "");
  const auto offered = [&](const std::string& words) {
    const Outcome outcome = shell(
        "\"$QUIRE\" completion bash > $HOME/script; bash -c '. $HOME/script; COMP_WORDS=(" + words +
        "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _quire_complete; "
        "printf \"%s\\n\" \"${COMPREPLY[@]}\" | sort | tr \"\\n\" \" \"'");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(offered("quire run m --activations \"\""), "f32 int16 int8 ");
  EXPECT_EQ(offered("quire chat m --kv-cache-dtype \"\""), "auto bfloat16 float16 float32 ");
  EXPECT_NE(offered("quire bench model m --isa \"\"").find("avx2"), std::string::npos);
  EXPECT_EQ(offered("quire run \"\""), "other small ");
  EXPECT_EQ(offered("quire tokenize sm"), "small ");
  EXPECT_EQ(offered("quire devices \"\"").find("small"), std::string::npos);
}

TEST_F(CommandTest, AFullStandardOutputIsAnError) {
  for (const Arguments& arguments : {Arguments{"run", tiny(), "-p", "x", "-n", "2"},
                                     {"run", tiny(), "-p", "x", "-n", "2", "--json"},
                                     {"info", tiny()},
                                     {"info", tiny(), "--json"},
                                     {"plan", tiny()},
                                     {"plan", tiny(), "--json"},
                                     {"tokenize", tiny(), "-p", "x"},
                                     {"detokenize", tiny(), "40"},
                                     {"devices"},
                                     {"completion", "bash"},
                                     {"--help"},
                                     {"run", "--help"}}) {
    const Outcome outcome = quire(arguments, "", "/dev/full");
    EXPECT_EQ(outcome.exit_code, 7) << arguments[0] << "\n" << outcome.err;
    EXPECT_NE(outcome.err.find("cannot write standard output: No space left on device"),
              std::string::npos)
        << arguments[0] << "\n"
        << outcome.err;
  }
  const Outcome chat = quire({"chat", tiny(), "-n", "1"}, "x\ny\n", "/dev/full");
  EXPECT_EQ(chat.exit_code, 7) << chat.err;
}

TEST_F(CommandTest, ABrokenPipeCancelsTheAnswer) {
  // The answer would take minutes; the child must end soon after head has gone.
  std::string flags;
  for (const std::string& flag : endless_flags()) flags += " " + flag;
  const Outcome outcome = shell("{ \"$QUIRE\" run " + endless_model() + " -p x" + flags +
                                "; echo $? > $HOME/code; } | head -c 3 | wc -c");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(std::stoi(outcome.out), 3);
  EXPECT_EQ(read_file(path("code")), "7\n");
  EXPECT_NE(outcome.err.find("cannot write standard output: Broken pipe"), std::string::npos)
      << outcome.err;
}

TEST_F(CommandTest, InterruptEndsARunWithItsOwnCode) {
  Arguments arguments = {"run", endless_model(), "-p", "x"};
  for (const std::string& flag : endless_flags()) arguments.push_back(flag);
  Terminal terminal(arguments, environment());
  ASSERT_TRUE(terminal.expect_bytes(50));
  terminal.type(kCtrlC);
  ASSERT_TRUE(terminal.expect("decode"));
  EXPECT_EQ(terminal.wait(), 130);
}

}  // namespace
}  // namespace quire
