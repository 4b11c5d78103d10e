// quire chat on a terminal and through a pipe.
#include <signal.h>

#include <nlohmann/json.hpp>

#include "cli/quire_process.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

class ChatTest : public CliTest {
 protected:
  // A chat whose answers have one token.
  std::unique_ptr<Terminal> open_chat(const Arguments& more = {"-n", "1", "--temperature", "0"}) {
    Arguments arguments = {"chat", tiny()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto terminal = std::make_unique<Terminal>(arguments, environment());
    EXPECT_TRUE(terminal->expect("/help lists the commands."));
    EXPECT_TRUE(terminal->expect_prompt());
    return terminal;
  }

  // Asks and waits until the answer has ended and the prompt is back.
  static void ask(Terminal& chat, const std::string& text) {
    chat.type(text + "\r");
    ASSERT_TRUE(chat.expect("length limit"));
    ASSERT_TRUE(chat.expect_prompt());
  }

  // The conversation, as /save writes it.
  Json saved(Terminal& chat) {
    chat.type("/save " + path("saved.json") + "\r");
    EXPECT_TRUE(chat.expect("saved to"));
    EXPECT_TRUE(chat.expect_prompt());
    return Json::parse(read_file(path("saved.json")));
  }

  std::string history() const { return read_file(path("state/quire/chat_history")); }
};

TEST_F(ChatTest, KeepsWhatWasTypedInAnyScript) {
  const auto chat = open_chat();
  ask(*chat, "hällo wörld, 你好, мир 🙂");
  const Json messages = saved(*chat);
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[0], Json({{"role", "user"}, {"content", "hällo wörld, 你好, мир 🙂"}}));
  EXPECT_EQ(messages[1]["role"], "assistant");
}

TEST_F(ChatTest, EditsALineByCharactersNotBytes) {
  const auto chat = open_chat();
  ask(*chat, "aöü\x7f\x7f\x62");  // two backspaces
  EXPECT_EQ(saved(*chat)[0]["content"], "ab");
}

TEST_F(ChatTest, InterruptAtThePromptClearsTheLineAndSaysHowToLeave) {
  const auto chat = open_chat();
  chat->type("half a line");
  ASSERT_TRUE(chat->expect("half a line"));
  chat->type(kCtrlC);
  ASSERT_TRUE(chat->expect("Ctrl-C again leaves"));
  ASSERT_TRUE(chat->expect_prompt());
  EXPECT_EQ(saved(*chat), Json::array());
  ask(*chat, "whole");
  EXPECT_EQ(saved(*chat)[0]["content"], "whole");
}

TEST_F(ChatTest, ASecondInterruptInARowLeaves) {
  const auto chat = open_chat();
  chat->type(kCtrlC);
  ASSERT_TRUE(chat->expect("Ctrl-C again leaves"));
  ASSERT_TRUE(chat->expect_prompt());
  chat->type(kCtrlC);
  EXPECT_EQ(chat->wait(), 0);
}

TEST_F(ChatTest, ALineBetweenTwoInterruptsMakesTheSecondTheFirstAgain) {
  const auto chat = open_chat();
  for (int i = 0; i < 3; ++i) {
    chat->type(kCtrlC);
    ASSERT_TRUE(chat->expect("Ctrl-C again leaves"));
    ASSERT_TRUE(chat->expect_prompt());
    ask(*chat, "x");
  }
  chat->type("/exit\r");
  EXPECT_EQ(chat->wait(), 0);
}

TEST_F(ChatTest, InterruptStopsAnAnswerAndNothingElse) {
  Arguments arguments = {"chat", endless_model()};
  for (const std::string& flag : endless_flags()) arguments.push_back(flag);
  Terminal chat(arguments, environment());
  ASSERT_TRUE(chat.expect_prompt());
  for (int i = 0; i < 2; ++i) {
    chat.type("go on\r");
    ASSERT_TRUE(chat.expect("go on"));
    ASSERT_TRUE(chat.expect_bytes(50));
    chat.type(kCtrlC);
    ASSERT_TRUE(chat.expect("(stopped)"));
    ASSERT_TRUE(chat.expect_prompt());
  }
  const Json messages = saved(chat);
  ASSERT_EQ(messages.size(), 4U) << "both questions and the parts that were answered are kept";
  chat.type(kCtrlD);
  EXPECT_EQ(chat.wait(), 0);
}

TEST_F(ChatTest, HistoryOutlivesAKilledChat) {
  {
    const auto chat = open_chat();
    ask(*chat, "remember me");
    chat->kill(SIGKILL);
    EXPECT_EQ(chat->wait(), 128 + SIGKILL);
  }
  EXPECT_NE(history().find("remember"), std::string::npos) << history();
  const auto chat = open_chat();
  chat->type("\x10");  // Ctrl-P: the line before
  ASSERT_TRUE(chat->expect("remember me"));
  ask(*chat, "");
  EXPECT_EQ(saved(*chat)[0]["content"], "remember me");
}

TEST_F(ChatTest, HistoryKeepsEveryScript) {
  {
    const auto chat = open_chat();
    ask(*chat, "schön 好");
    chat->type("/exit\r");
    EXPECT_EQ(chat->wait(), 0);
  }
  const auto chat = open_chat();
  chat->type("\x10\x10");  // past /exit
  ASSERT_TRUE(chat->expect("schön 好"));
  ask(*chat, "");
  EXPECT_EQ(saved(*chat)[0]["content"], "schön 好");
}

TEST_F(ChatTest, CommandsDoWhatHelpSays) {
  const auto chat = open_chat();
  chat->type("/help\r");
  for (const char* name : {"/system", "/reset", "/save", "/stats", "/exit", "Ctrl-C"}) {
    ASSERT_TRUE(chat->expect(name));
  }
  ask(*chat, "one");
  chat->type("/stats\r");
  ASSERT_TRUE(chat->expect("generated 1 tokens"));
  ASSERT_TRUE(chat->expect("KV blocks:"));
  ASSERT_TRUE(chat->expect_prompt());
  chat->type("/system Be brief.\r");
  ASSERT_TRUE(chat->expect_prompt());
  EXPECT_EQ(saved(*chat), Json({{{"role", "system"}, {"content", "Be brief."}}}));
  ask(*chat, "two");
  chat->type("/reset\r");
  ASSERT_TRUE(chat->expect_prompt());
  EXPECT_EQ(saved(*chat).size(), 1U) << "the system message stays";
  chat->type("/rest\r");
  ASSERT_TRUE(chat->expect("unknown command /rest (did you mean /reset?); /help lists them"));
  chat->type("/save /nowhere/at/all\r");
  ASSERT_TRUE(chat->expect("cannot write \"/nowhere/at/all\""));
  chat->type("/exit\r");
  EXPECT_EQ(chat->wait(), 0);
}

TEST_F(ChatTest, EndOfFileAtThePromptLeaves) {
  const auto chat = open_chat();
  chat->type(kCtrlD);
  EXPECT_EQ(chat->wait(), 0);
}

TEST_F(ChatTest, ReadsPlainLinesFromAPipe) {
  const std::string save = path("piped.json");
  const Outcome chat =
      quire({"chat", tiny(), "-n", "1"}, "grüß dich\nand again\n/save " + save + "\n");
  EXPECT_EQ(chat.exit_code, 0) << chat.err;
  const Json messages = Json::parse(read_file(save));
  ASSERT_EQ(messages.size(), 4U);
  EXPECT_EQ(messages[0]["content"], "grüß dich");
  EXPECT_EQ(messages[2]["content"], "and again");
}

TEST_F(ChatTest, AQuestionThatDoesNotFitIsReportedAndForgotten) {
  std::string word;
  for (int i = 0; i < 400; ++i) word += "xyz ";
  const std::string save = path("after.json");
  const Outcome chat = quire({"chat", tiny(), "-n", "1"}, word + "\nok\n/save " + save + "\n");
  EXPECT_EQ(chat.exit_code, 0) << chat.err;
  EXPECT_NE(chat.out.find("error: "), std::string::npos) << chat.out;
  const Json messages = Json::parse(read_file(save));
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[0]["content"], "ok");
}

}  // namespace
}  // namespace quire
