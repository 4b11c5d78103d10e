#include "apps/completion.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

namespace quire {
namespace {

// A command line with the constructs that quire uses: nested subcommands, sets, flags, groups,
// hidden options, quotes and brackets in descriptions.
class CompletionTest : public testing::Test {
 protected:
  CompletionTest() {
    CommandLine run = line_.subcommand("run", "Answer a prompt; it's quick");
    run.option("MODEL", text_, "the model").required();
    run.option("-p,--prompt", text_, "what to ask [text: any]\nsecond line");
    run.option("--activations", text_, "kind").one_of({"int16", "int8", "f32"});
    run.flag("--raw", flag_, "no chat template");
    run.option("--secret", text_, "hidden").group("");
    run.option("--top-k", number_, "candidates").group("Sampling");
    CommandLine bench = line_.subcommand("bench", "Measure");
    bench.subcommand("model", "A model's throughput").option("--repeat", number_, "");
  }

  void SetUp() override {
    std::string folder = (std::filesystem::temp_directory_path() / "quire-XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Writes the script of `shell` to a file and returns its path.
  std::string write_script(const std::string& shell) {
    Result<std::string> script = completion_script(line_, shell);
    EXPECT_TRUE(script.ok());
    const std::string path = (folder_ / shell).string();
    std::ofstream(path) << *script;
    return path;
  }

  // What bash offers when the cursor is at the last of `words`, separated by spaces.
  std::string complete_in_bash(const std::string& words) {
    return output_of("bash -c 'source " + write_script("bash") + "; COMP_WORDS=(" + words +
                     "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _quire_complete; "
                     "echo \"${COMPREPLY[*]}\"'");
  }

  // The standard output of a command that must succeed, without its last newline.
  static std::string output_of(const std::string& command) {
    std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    std::string output;
    std::array<char, 256> buffer;
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) output += buffer.data();
    EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
    return output.empty() ? output : output.substr(0, output.size() - 1);
  }

  static bool has_shell(const std::string& name) {
    return std::system(("command -v " + name + " >/dev/null").c_str()) == 0;
  }

  CommandLine line_{"quire", "test"};
  std::string text_;
  int number_ = 0;
  bool flag_ = false;
  std::filesystem::path folder_;
};

TEST_F(CompletionTest, BashAcceptsItsScript) { output_of("bash -n " + write_script("bash")); }

TEST_F(CompletionTest, BashOffersSubcommands) {
  EXPECT_EQ(complete_in_bash("quire \"\""), "run bench");
}

TEST_F(CompletionTest, BashOffersNestedSubcommands) {
  EXPECT_EQ(complete_in_bash("quire bench \"\""), "model");
}

TEST_F(CompletionTest, BashOffersOptionsOfTheSubcommandButNotHiddenOnes) {
  EXPECT_EQ(complete_in_bash("quire run m.gguf --"), "--help --prompt --activations --raw --top-k");
  EXPECT_EQ(complete_in_bash("quire bench model --r"), "--repeat");
}

TEST_F(CompletionTest, BashOffersTheValuesOfASet) {
  EXPECT_EQ(complete_in_bash("quire run --activations \"\""), "int16 int8 f32");
  EXPECT_EQ(complete_in_bash("quire run --activations int"), "int16 int8");
}

TEST_F(CompletionTest, BashLeavesOtherValuesToFileNames) {
  EXPECT_EQ(complete_in_bash("quire run --prompt \"\""), "");
  EXPECT_EQ(complete_in_bash("quire run \"\""), "");
}

TEST_F(CompletionTest, BashOffersCachedModelsWhereAModelIsWanted) {
  std::filesystem::create_directories(folder_ / "cache/quire/models");
  for (const char* name : {"small.gguf", "smart.gguf", "other.gguf", ".lock", "part.tmp"}) {
    std::ofstream(folder_ / "cache/quire/models" / name) << "";
  }
  EXPECT_EQ(complete_in_bash("quire run \"\""), "other small smart");
  EXPECT_EQ(complete_in_bash("quire run sm"), "small smart");
  EXPECT_EQ(complete_in_bash("quire run ./sm"), "") << "a path: file names are offered";
  EXPECT_EQ(complete_in_bash("quire bench \"\""), "model");
}

TEST_F(CompletionTest, ZshAcceptsItsScript) {
  if (!has_shell("zsh")) GTEST_SKIP() << "zsh is not installed";
  output_of("zsh -n " + write_script("zsh"));
}

TEST_F(CompletionTest, ZshEscapesBracketsAndQuotes) {
  const std::string script = *completion_script(line_, "zsh");
  EXPECT_NE(script.find("'--prompt[what to ask \\[text\\: any\\]]:value:_files'"),
            std::string::npos)
      << script;
  EXPECT_NE(script.find("'run:Answer a prompt; it'\\''s quick'"), std::string::npos) << script;
}

TEST_F(CompletionTest, FishAcceptsItsScript) {
  if (!has_shell("fish")) GTEST_SKIP() << "fish is not installed";
  output_of("fish --no-execute " + write_script("fish"));
}

TEST_F(CompletionTest, FishOffersWhatTheCommandLineAllows) {
  if (!has_shell("fish")) GTEST_SKIP() << "fish is not installed";
  const std::string source =
      "fish --no-config -c 'source " + write_script("fish") + "; complete -C ";
  EXPECT_EQ(output_of(source + "\"quire run --activations int1\"'"), "int16\tkind");
  EXPECT_EQ(output_of(source + "\"quire bench m\"'"), "model\tA model's throughput");
}

TEST_F(CompletionTest, RefusesAnUnknownShellAndNamesTheSupportedOnes) {
  const Result<std::string> script = completion_script(line_, "csh");
  ASSERT_FALSE(script.ok());
  EXPECT_EQ(script.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(script.status().message(),
            "no completion for shell 'csh'; supported are bash, zsh and fish");
}

}  // namespace
}  // namespace quire
