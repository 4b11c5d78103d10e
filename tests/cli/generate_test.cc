// quire generate: batches, resuming, and what it must never destroy.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/quire_process.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

class GenerateTest : public CliTest {
 protected:
  // `count` prompts with ids p0, p1, ...; returns the file's path.
  std::string write_prompts(int count) const {
    std::string text;
    for (int i = 0; i < count; ++i) {
      const std::string number = std::to_string(i);
      text += "{\"id\":\"p" + number + "\",\"prompt\":\"word " + number + "\"}\n";
    }
    write_file(path("in.jsonl"), text);
    return path("in.jsonl");
  }

  Outcome generate(const std::string& in, const std::string& out) const {
    return quire({"generate", tiny(), "-i", in, "-o", out, "-n", "2", "--temperature", "0"});
  }

  static std::vector<Json> records(const std::string& file) {
    std::vector<Json> all;
    std::istringstream lines(read_file(file));
    for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line));
    return all;
  }

  static std::multiset<std::string> ids(const std::string& file) {
    std::multiset<std::string> all;
    for (const Json& record : records(file)) all.insert(record["id"].dump());
    return all;
  }
};

TEST_F(GenerateTest, AnswersEveryLineOnce) {
  const std::string in = write_prompts(20), out = path("out.jsonl");
  const Outcome run = generate(in, out);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const std::vector<Json> answers = records(out);
  EXPECT_EQ(answers.size(), 20U);
  const std::multiset<std::string> all = ids(out);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 20U);
  for (const Json& answer : answers) {
    for (const char* key : {"id", "text", "token_ids", "finish_reason", "usage", "timings"}) {
      EXPECT_TRUE(answer.contains(key)) << key << " in " << answer.dump();
    }
  }
}

TEST_F(GenerateTest, SearchesWithBeamsWhereALineAsksForThem) {
  write_file(path("in"),
             R"({"id":1,"prompt":"hello","max_tokens":6,"beam_width":3,"n":2,"length_penalty":0.6,)"
             R"("early_stopping":"never"})"
             "\n"
             R"({"id":2,"prompt":"hello","max_tokens":6})"
             "\n"
             R"({"id":3,"prompt":"hello","beam_width":2,"early_stopping":"always"})"
             "\n");
  EXPECT_EQ(quire({"generate", tiny(), "-i", path("in"), "-o", path("out")}).exit_code, 0);
  std::vector<Json> answers(4);
  for (const Json& record : records(path("out"))) answers.at(record["id"]) = record;
  EXPECT_EQ(answers[1]["choices"].size(), 2u);
  EXPECT_TRUE(answers[1]["choices"][0].contains("score"));
  EXPECT_FALSE(answers[2].contains("score"));
  const std::string error = answers[3]["error"];
  EXPECT_NE(error.find("\"early_stopping\" must be true, false or \"never\""), std::string::npos)
      << error;
}

TEST_F(GenerateTest, AKilledRunIsResumedWithoutLossOrRepeat) {
  const std::string in = write_prompts(100), out = path("out.jsonl");
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t child = start({"generate",
                             tiny(),
                             "-i",
                             in,
                             "-o",
                             out,
                             "-n",
                             "200",
                             "--ignore-eos",
                             "--temperature",
                             "0",
                             "--max-num-seqs",
                             "2"},
                            null,
                            null,
                            null);
  ASSERT_TRUE(eventually([&] {
    std::error_code error;
    return std::filesystem::file_size(out, error) > 0 && !error;
  }));
  kill(child, SIGKILL);
  EXPECT_EQ(wait_for(child), 128 + SIGKILL);
  close(null);
  const std::string before = read_file(out);
  const std::string whole = before.substr(0, before.rfind('\n') + 1);
  EXPECT_FALSE(whole.empty());
  write_file(out, whole + "{\"id\":\"p99\",\"te");  // torn
  const Outcome run = generate(in, out);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(read_file(out).substr(0, whole.size()), whole) << "answers that were there stay";
  const std::multiset<std::string> all = ids(out);
  EXPECT_EQ(all.size(), 100U);
  EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 100U);
  EXPECT_NE(run.err.find("answered before"), std::string::npos) << run.err;
}

TEST_F(GenerateTest, ABadLineIsAnErrorRecordWithItsNumberAndIsTriedAgain) {
  write_file(path("in"), "{\"id\":\"a\",\"prompt\":\"x\"}\nnot json\n{\"id\":\"b\"}\n");
  for (int i = 0; i < 2; ++i) {
    const Outcome run = generate(path("in"), path("out"));
    EXPECT_EQ(run.exit_code, 0) << run.err;
    std::map<int, std::string> errors;
    const std::vector<Json> all = records(path("out"));
    EXPECT_EQ(all.size(), 3U);
    for (const Json& record : all) {
      if (record.contains("error")) errors[record["line"]] = record["error"];
    }
    ASSERT_EQ(errors.size(), 2U);
    EXPECT_NE(errors[2].find("invalid JSON"), std::string::npos) << errors[2];
    EXPECT_NE(errors[3].find("exactly one of"), std::string::npos) << errors[3];
  }
}

TEST_F(GenerateTest, LinesWithoutIdDoNotCollideWithIdsOfOthers) {
  write_file(path("in"), "{\"id\":2,\"prompt\":\"x\"}\n{\"prompt\":\"y\"}\n{\"prompt\":\"z\"}\n");
  const Outcome run = generate(path("in"), path("out"));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  std::map<int, bool> unnamed;  // by line
  for (const Json& record : records(path("out"))) {
    EXPECT_FALSE(record.contains("error")) << record.dump();
    if (record["id"].is_null()) unnamed[record["line"]] = true;
  }
  EXPECT_EQ(unnamed, (std::map<int, bool>{{2, true}, {3, true}}));
  const std::string before = read_file(path("out"));
  EXPECT_EQ(generate(path("in"), path("out")).exit_code, 0);
  EXPECT_EQ(read_file(path("out")), before) << "all lines were answered";
}

TEST_F(GenerateTest, AFileThatIsNotOfAnswersIsLeftAlone) {
  const std::string in = write_prompts(1), notes = path("notes.txt");
  for (const char* text :
       {"my precious notes\n",
        "my precious notes",
        "{\"id\":\"p0\",\"prompt\":\"x\"}\n",
        "{\"id\":\"p0\",\"prompt\":\"x\"}",
        "{\"id\":\"p0\",\"text\":\"x\"}\nnotes\n{\"id\":\"p1\",\"text\":\"x\"}\n",
        "[1]\n",
        "\n\n"}) {
    write_file(notes, text);
    const Outcome run = generate(in, notes);
    EXPECT_EQ(run.exit_code, 2) << text << run.err;
    EXPECT_NE(run.err.find("is not an answer file (line "), std::string::npos) << run.err;
    EXPECT_EQ(read_file(notes), text);
  }
}

TEST_F(GenerateTest, InputAsOutputIsRefusedUnderAnyName) {
  const std::string in = write_prompts(2), before = read_file(in);
  std::filesystem::create_symlink(in, path("link"));
  std::filesystem::create_hard_link(in, path("hard"));
  for (const std::string& out :
       {in, path("link"), path("hard"), folder_.string() + "/./in.jsonl"}) {
    const Outcome run = generate(in, out);
    EXPECT_EQ(run.exit_code, 2) << run.err;
    EXPECT_NE(run.err.find("same file"), std::string::npos) << run.err;
    EXPECT_EQ(read_file(in), before);
  }
}

TEST_F(GenerateTest, APipeGetsTheAnswersAndStaysAPipe) {
  const std::string in = write_prompts(3), fifo = path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const int reader = open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  const Outcome run = generate(in, fifo);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  char buffer[1 << 16];
  const ssize_t count = read(reader, buffer, sizeof buffer);
  close(reader);
  ASSERT_GT(count, 0);
  EXPECT_EQ(std::count(buffer, buffer + count, '\n'), 3);
  EXPECT_TRUE(std::filesystem::is_fifo(fifo));
}

TEST_F(GenerateTest, ADeviceStaysADeviceAndItsErrorIsReported) {
  const std::string in = write_prompts(3), device = path("full");
  if (mknod(device.c_str(), S_IFCHR | 0600, makedev(1, 7)) != 0) GTEST_SKIP() << "needs root";
  const int fd = open(device.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) GTEST_SKIP() << "the temporary folder allows no devices";
  close(fd);
  const Outcome run = generate(in, device);
  EXPECT_EQ(run.exit_code, 7) << run.err;
  EXPECT_NE(run.err.find("No space left on device"), std::string::npos) << run.err;
  EXPECT_TRUE(std::filesystem::is_character_file(device));
}

TEST_F(GenerateTest, ASymbolicLinkStaysALink) {
  const std::string in = write_prompts(2);
  write_file(path("real"), "{\"id\":\"p0\",\"text\":\"kept\"}\n{\"id\":\"p1\",\"error\":\"x\"}\n");
  std::filesystem::create_symlink(path("real"), path("out"));
  EXPECT_EQ(generate(in, path("out")).exit_code, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(path("out")));
  EXPECT_EQ(ids(path("real")), (std::multiset<std::string>{"\"p0\"", "\"p1\""}));
}

TEST_F(GenerateTest, ImpossiblePathsAreRefused) {
  const std::string in = write_prompts(1);
  EXPECT_EQ(generate(path("missing"), path("out")).exit_code, 3);
  EXPECT_EQ(generate(in, path("no/such/folder/out")).exit_code, 7);
  Outcome run = generate(folder_.string(), path("out"));
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_NE(run.err.find("is a directory"), std::string::npos) << run.err;
  run = generate(in, folder_.string());
  EXPECT_EQ(run.exit_code, 2) << run.err;
  EXPECT_NE(run.err.find("is a directory"), std::string::npos) << run.err;
}

TEST_F(GenerateTest, ARefusedFlagLeavesNoOutputFile) {
  const std::string in = write_prompts(1);
  const Outcome run = quire({"generate", tiny(), "-i", in, "-o", path("out"), "--block-size", "3"});
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_FALSE(std::filesystem::exists(path("out")));
}

TEST_F(GenerateTest, ProgressOffATerminalIsPlainLines) {
  const std::string in = write_prompts(5);
  const Outcome run = generate(in, path("out"));
  EXPECT_NE(run.err.find("generate: 5 of 5"), std::string::npos) << run.err;
  EXPECT_EQ(run.err.find('['), std::string::npos) << run.err;
  EXPECT_EQ(run.err.find("5 of 5"), run.err.rfind("5 of 5")) << "once: " << run.err;
}

TEST_F(GenerateTest, InterruptEndsTheRunAndReportsWhatIsDone) {
  const std::string in = write_prompts(50);
  Arguments arguments = {"generate", endless_model(), "-i", in, "-o", path("out")};
  for (const std::string& flag : endless_flags()) arguments.push_back(flag);
  Terminal terminal(arguments, environment());
  ASSERT_TRUE(terminal.expect("KV pool"));
  // The pool line comes after the load, so that one interrupt is seen by the batch.
  terminal.type(kCtrlC);
  ASSERT_TRUE(terminal.expect("0/50"));
  ASSERT_TRUE(terminal.expect("interrupted; run the same command again"));
  EXPECT_EQ(terminal.wait(), 130);
  EXPECT_EQ(terminal.screen().find("50/50"), std::string::npos);
}

}  // namespace
}  // namespace quire
