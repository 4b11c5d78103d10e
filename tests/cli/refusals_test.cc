// What must be refused: the exit code, a message that names value and remedy, and nothing on
// standard output.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "cli/quire_process.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

class RefusalTest : public CliTest {
 protected:
  // `message` lists texts that standard error must hold.
  void refuses(const Arguments& arguments,
               int exit_code,
               const std::vector<std::string>& message,
               const std::string& input = "") const {
    const Outcome outcome = quire(arguments, input);
    std::string command;
    for (const std::string& argument : arguments) {
      command += ' ';
      command += argument.substr(0, 100);
    }
    EXPECT_EQ(outcome.exit_code, exit_code) << command << "\n" << outcome.err;
    EXPECT_NE(("\n" + outcome.err).find("\nquire: "), std::string::npos) << outcome.err;
    for (const std::string& part : message) {
      EXPECT_NE(outcome.err.find(part), std::string::npos)
          << "no \"" << part << "\" in:" << command << "\n"
          << outcome.err;
    }
    EXPECT_EQ(outcome.out, "") << command;
  }

  // A copy of the tiny model to damage.
  std::filesystem::path copy_of_model() const {
    std::filesystem::copy(tiny(), folder_ / "model");
    return folder_ / "model";
  }

  // Changes config.json of the copy.
  void edit(const std::filesystem::path& file, const char* key, const Json& value) const {
    Json json = Json::parse(read_file(file));
    json[key] = value;
    write_file(file, json.dump());
  }
};

TEST_F(RefusalTest, UnknownWordsNameTheNearestKnownOne) {
  refuses({"nosuchcmd"}, 2, {"\"nosuchcmd\"", "run, chat, generate"});
  refuses({"rnu"}, 2, {"\"rnu\"", "did you mean run?"});
  refuses({}, 2, {"run, chat, generate"});
  refuses({"run", tiny(), "--max-tokns", "3"}, 2, {"--max-tokns", "did you mean --max-tokens?"});
  refuses({"run", "--max-tokns", "3"}, 2, {"--max-tokns", "did you mean --max-tokens?"});
  refuses({"run"}, 2, {"MODEL", "quire run --help"});
  refuses({"bench", "paper", "sharing", "--threads", "2"}, 2, {"--threads", "--model"});
  refuses(
      {"bench", "paper", "sharing", "--model", tiny(), "--threads", "5000"}, 2, {"5000", "1024"});
  refuses({"bench", "paper", "sharing", "--model", "/no/such/model"}, 3, {"/no/such/model"});
  refuses({"bench", "modl"}, 2, {"\"modl\"", "did you mean model?"});
  refuses({"completion", "csh"}, 2, {"csh", "bash"});
}

TEST_F(RefusalTest, ValuesThatDoNotParseNameFlagValueAndWhatIsAllowed) {
  refuses({"run", tiny(), "-p", "x", "--threads", "many"}, 2, {"--threads", "many"});
  refuses(
      {"run", tiny(), "-p", "x", "--top-k", "many"}, 2, {"--top-k", "many", "quire run --help"});
  refuses({"run", tiny(), "-p", "x", "--block-size", "x"}, 2, {"--block-size", "\"x\""});
  refuses({"bench", "model", tiny(), "--batch", "1,x"}, 2, {"--batch", "\"x\"", "1 to 4096"});
  refuses({"bench", "model", tiny(), "--batch", "0"}, 2, {"--batch", "\"0\"", "1 to 4096"});
  refuses({"perplexity", tiny(), "--context", "1"}, 2, {"--context", "\"1\"", "2 to 1048576"});
}

TEST_F(RefusalTest, ImpossibleFlags) {
  const auto run = [&](const Arguments& more) {
    Arguments all = {"run", tiny(), "-p", "x"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  refuses(run({"--threads", "100000"}), 2, {"--threads", "100000", "1024", "core"});
  refuses(run({"--threads", "-1"}), 2, {"--threads", "-1"});
  refuses(run({"--block-size", "3"}), 2, {"--block-size", "3", "power of two"});
  refuses(run({"--max-num-seqs", "0"}), 2, {"--max-num-seqs", "0"});
  refuses(run({"--max-num-batched-tokens", "1", "--max-num-seqs", "2"}), 2, {"raise the first"});
  refuses(run({"--kv-cache-dtype", "int3"}), 2, {"--kv-cache-dtype", "int3", "bfloat16"});
  refuses(run({"--activations", "int3"}), 2, {"--activations", "int3", "int16"});
  refuses(run({"--isa", "mmx"}), 2, {"mmx", "generic"});
  refuses(run({"--max-model-len", "100000"}), 2, {"100000", "256", "lower it"});
  refuses(run({"--temperature", "-1"}), 2, {"temperature", "-1"});
  refuses(run({"-n", "-1"}), 2, {"--max-tokens", "-1"});
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need the addresses
TEST_F(RefusalTest, MoreThreadsThanTheSystemAllows) {
  // 1,000 stacks of 8 MiB do not fit: std::thread throws.
  const Outcome outcome =
      shell("ulimit -s 8192; ulimit -v 3000000; \"$QUIRE\" run \"$MODEL\" -p x --threads 1000");
  EXPECT_EQ(outcome.exit_code, 6) << outcome.err;
  EXPECT_EQ(outcome.err, "quire: the system allows no further thread: lower --threads\n");
}
#endif

TEST_F(RefusalTest, ModelsThatAreNotThere) {
  refuses({"run", "no-such-model", "-p", "x"}, 3, {"no-such-model", "scripts/get-model"});
  refuses({"info", "org/no-such-model"}, 3, {"org/no-such-model"});
  refuses({"info", path("missing.gguf")}, 3, {"missing.gguf"});
}

TEST_F(RefusalTest, AModelThatIsNoRegularFile) {
  ASSERT_EQ(mkfifo(path("fifo.gguf").c_str(), 0600), 0);
  refuses({"info", path("fifo.gguf")}, 2, {"fifo.gguf", "not a regular file"});
  std::filesystem::create_directory(path("empty"));
  const Outcome outcome = quire({"info", path("empty")});
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_TRUE(outcome.err.starts_with("quire: ")) << outcome.err;
}

TEST_F(RefusalTest, DamagedGguf) {
  write_file(path("empty.gguf"), "");
  refuses({"info", path("empty.gguf")}, 4, {"empty.gguf"});
  write_file(path("short.gguf"), std::string("GGUF\3\0\0\0", 8));
  refuses({"run", path("short.gguf"), "-p", "x"}, 4, {"short.gguf"});
  write_file(path("huge.gguf"), std::string("GGUF\3\0\0\0", 8) + std::string(16, '\x7f'));
  refuses({"info", path("huge.gguf")}, 4, {"huge.gguf"});
}

TEST_F(RefusalTest, DamagedSafetensors) {
  const std::filesystem::path model = copy_of_model(), file = model / "model.safetensors";
  const std::string whole = read_file(file);
  write_file(file, whole.substr(0, whole.size() - 1));
  refuses({"run", model, "-p", "x"}, 4, {"model.safetensors"});
  write_file(file, whole.substr(0, 20));
  refuses({"info", model}, 4, {"model.safetensors"});
  write_file(file, std::string(8, '\xff') + whole.substr(8));
  refuses({"info", model}, 4, {"model.safetensors"});
  std::filesystem::remove(file);
  refuses({"info", model}, 3, {"model.safetensors"});
}

TEST_F(RefusalTest, UnknownArchitectureListsTheSupportedOnes) {
  const std::filesystem::path model = copy_of_model();
  edit(model / "config.json", "architectures", {"RwkvForCausalLM"});
  edit(model / "config.json", "model_type", "rwkv");
  refuses({"run", model, "-p", "x"}, 5, {"Rwkv", "LlamaFor", "Qwen2For", "OPTFor"});
}

TEST_F(RefusalTest, MissingTensorsAndWrongShapes) {
  const std::filesystem::path model = copy_of_model();
  edit(model / "config.json", "num_hidden_layers", 3);
  refuses({"run", model, "-p", "x"}, 3, {"lacks 9 tensors", "layers.2"});
  edit(model / "config.json", "num_hidden_layers", 2);
  edit(model / "config.json", "intermediate_size", 64);
  refuses({"run", model, "-p", "x"}, 4, {"mlp", "64", "48"});
}

TEST_F(RefusalTest, ATokenizerOfAnotherModel) {
  const std::filesystem::path model = copy_of_model(), file = model / "tokenizer.json";
  Json tokenizer = Json::parse(read_file(file));
  Json& vocabulary = tokenizer["model"]["vocab"];
  for (int i = 0; i < 100; ++i) vocabulary["extra" + std::to_string(i)] = 272 + i;
  write_file(file, tokenizer.dump());
  refuses({"run", model, "-p", "x"}, 4, {"372 tokens", "272", "another model"});
}

TEST_F(RefusalTest, PromptsThatDoNotFit) {
  std::string prompt;
  for (int i = 0; i < 400; ++i) prompt += "xyz ";
  refuses({"run", tiny(), "--raw", "-p", prompt}, 2, {"256"});
  refuses({"run", tiny(), "--raw", "-p", prompt, "--kv-cache-memory-bytes", "64k"}, 2, {"tokens"});
  refuses({"run", tiny(), "-p", "x", "--kv-cache-memory-bytes", "1k"},
          6,
          {"--kv-cache-memory-bytes 1000", "raise"});
}

TEST_F(RefusalTest, AKvPoolBeyondTheMemory) {
  refuses({"run", tiny(), "-p", "x", "--kv-cache-memory-bytes", "30T"},
          6,
          {"KV pool", "are available", "lower --kv-cache-memory-bytes to at most"});
}

TEST_F(RefusalTest, ASwapSpaceBeyondTheMemory) {
  refuses({"run", tiny(), "-p", "x", "--preemption-mode", "swap", "--swap-space", "30T"},
          6,
          {"swap space", "are available", "lower --swap-space to at most"});
  refuses({"run", tiny(), "-p", "x", "--preemption-mode", "swap", "--swap-space", "100"},
          6,
          {"--swap-space 100", "raise it"});
}

TEST_F(RefusalTest, PromptsThatAreNotText) {
  refuses({"run", tiny(), "--raw", "-p", "a\xff"}, 2, {"UTF-8"});
  write_file(path("template"), "{{ messages[0].content }}");
  refuses({"run", tiny(), "--chat-template", path("template"), "-p", "a\xff"},
          2,
          {"the user message is not valid UTF-8 at byte 1 (0xff)"});
  refuses({"tokenize", tiny(), "-p", "a\xff"}, 2, {"UTF-8"});
  refuses({"run", tiny(), "-f", "-"}, 2, {"empty"});
  refuses({"run", tiny()}, 2, {"no prompt"});
}

TEST_F(RefusalTest, FilesThatCannotBeRead) {
  const std::string folder = folder_.string();
  for (const Arguments& arguments : {Arguments{"run", tiny(), "-f", folder},
                                     {"tokenize", tiny(), "-f", folder},
                                     {"perplexity", tiny(), "-f", folder},
                                     {"run", tiny(), "-p", "x", "--chat-template", folder}}) {
    refuses(arguments, 2, {folder, "is a directory"});
  }
  for (const Arguments& arguments : {Arguments{"run", tiny(), "-f", path("none")},
                                     {"tokenize", tiny(), "-f", path("none")},
                                     {"perplexity", tiny(), "-f", path("none")},
                                     {"run", tiny(), "-p", "x", "--chat-template", path("none")}}) {
    refuses(arguments, 3, {path("none"), "No such file"});
  }
}

TEST_F(RefusalTest, OutputsThatCannotBeWritten) {
  const std::string out = path("no/such/folder/out");
  write_file(path("text"), std::string(200, 'a'));
  refuses({"perplexity", tiny(), "-f", path("text"), "--context", "16", "--save-kl-base", out},
          7,
          {out});
  // The file is opened before anything is measured: no table on standard output.
  refuses({"bench", "model", tiny(), "--json", out}, 7, {out});
}

TEST_F(RefusalTest, PoliciesThatDoNotGoTogether) {
  const auto run = [&](const Arguments& more) {
    Arguments all = {"run", tiny(), "-p", "x"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  refuses(run({"--kv-policy", "pow3"}), 2, {"--kv-policy", "'pow3'", "oracle"});
  refuses(run({"--batching", "now"}), 2, {"--batching", "'now'", "dynamic"});
  refuses(run({"--fusion", "norm-qkv,all"}), 2, {"--fusion", "'all'", "bias-residual"});
  refuses(run({"--kv-policy", "max", "--preemption-mode", "swap", "--swap-space", "1MiB"}),
          2,
          {"--preemption-mode swap", "--kv-policy max", "--kv-policy paged"});
  refuses(run({"--kv-policy", "max", "--beam-width", "2"}),
          2,
          {"--beam-width is 2", "--kv-policy max"});
  refuses(run({"--batching", "static", "--batch-size", "65"}), 2, {"65", "--max-num-seqs 64"});
  refuses(run({"--kv-policy", "off", "-n", "100", "--max-num-batched-tokens", "64"}),
          2,
          {"--kv-policy off", "--max-num-batched-tokens is 64"});
}

TEST_F(RefusalTest, FiguresOfThePaper) {
  refuses({"bench", "paper"}, 2, {"FIGURE"});
  refuses({"bench", "paper", "memory-wast"}, 2, {"'memory-wast'", "memory-waste,latency-rate"});
  refuses({"bench", "paper", "memory-waste", "--trace", "/nosuch"}, 3, {"/nosuch"});
  refuses({"bench", "paper", "shared-prefix", "--trace", path("t.csv")}, 2, {"--trace"});
  write_file(path("t.csv"), "TIMESTAMP,ContextTokens,GeneratedTokens\n2023,1\n");
  refuses({"bench", "paper", "memory-waste", "--trace", path("t.csv")}, 4, {"t.csv, line 2"});
}

TEST_F(RefusalTest, NumbersOfAnswers) {
  const auto run = [&](const Arguments& more) {
    Arguments all = {"run", tiny(), "-p", "x"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  refuses(run({"--n", "0"}), 2, {"--n must be >= 1, got 0"});
  refuses(run({"--best-of", "0"}), 2, {"--best-of is 0", "--n, which is 1"});
  refuses(run({"--n", "3", "--best-of", "2"}), 2, {"--best-of is 2", "--n, which is 3"});
  refuses(run({"--n", "9", "--max-num-seqs", "8", "--temperature", "1"}),
          2,
          {"--n is 9", "8", "--max-num-seqs"});
  refuses(run({"--n", "2", "--temperature", "0"}), 2, {"--n is 2", "greedy"});
  refuses({"chat", tiny(), "--n", "2"}, 2, {"--n"});
}

TEST_F(RefusalTest, BeamSearchOutOfRangeOrWithWhatItHasNoUseFor) {
  const auto run = [&](const Arguments& more) {
    Arguments all = {"run", tiny(), "--raw", "-p", "hello", "-n", "4"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  refuses(run({"--beam-width", "-1"}), 2, {"--beam-width must be >= 1", "got -1"});
  refuses(run({"--beam-width", "2", "--n", "3"}), 2, {"--n must be <= --beam-width, which is 2"});
  refuses(run({"--beam-width", "9", "--max-num-seqs", "8"}),
          2,
          {"--beam-width is 9", "max_num_seqs is 8", "raise --max-num-seqs"});
  refuses(run({"--beam-width", "2", "--temperature", "0.7"}),
          2,
          {"--temperature is 0.7", "leave it at 0 or 1", "--beam-width"});
  refuses(run({"--beam-width", "2", "--seed", "7"}), 2, {"--seed is 7", "leave it out"});
  refuses(run({"--beam-width", "2", "--best-of", "2"}), 2, {"--best-of is 2", "--beam-width is 2"});
  refuses(run({"--beam-width", "2", "--stop", "x"}), 2, {"--stop is \"x\"", "--stop-token-ids"});
  refuses(run({"--length-penalty", "0.6"}), 2, {"--length-penalty is 0.6", "set --beam-width"});
  refuses(run({"--early-stopping", "true"}), 2, {"--early-stopping is set", "set --beam-width"});
  refuses(run({"--beam-width", "2", "--early-stopping", "maybe"}),
          2,
          {"--early-stopping must be true, false or never, got maybe"});
  refuses(run({"--beam-width", "2", "--length-penalty", "11"}),
          2,
          {"--length-penalty must be in [-10, 10]", "got 11"});
  refuses({"chat", tiny(), "--beam-width", "2"}, 2, {"--beam-width"});
}

TEST_F(RefusalTest, TokenIdsOutOfRange) {
  refuses({"detokenize", tiny(), "272"}, 2, {"272", "[0, 272)"});
  refuses({"detokenize", tiny(), "--", "-1"}, 2, {"-1", "[0, 272)"});
  refuses({"detokenize", tiny()}, 2, {"99999999999", "[0, 272)"}, "5 99999999999");
  refuses({"detokenize", tiny()}, 2, {"separated by spaces"}, "5 x");
}

}  // namespace
}  // namespace quire
