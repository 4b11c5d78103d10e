// The whole path on a tiny checkpoint: text -> tokens -> engine -> text.
#include "frontend/llm.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/hash.h"
#include "base/monitor.h"
#include "frontend/conversation.h"

namespace quire {
namespace {

constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

class LlmTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    template_file_ = std::filesystem::temp_directory_path() /
                     ("quire_template_" + std::to_string(getpid()) + ".jinja");
    std::ofstream(template_file_) << kChatMl;
    Result<std::unique_ptr<Llm>> llm = load({});
    ASSERT_TRUE(llm.ok()) << llm.status().message();
    llm_ = std::move(*llm).release();
  }
  static void TearDownTestSuite() {
    delete llm_;
    std::filesystem::remove(template_file_);
  }
  static Result<std::unique_ptr<Llm>> load(EngineConfig engine) {
    engine.kv_cache_memory_bytes = 4 << 20;
    engine.num_threads = 2;
    engine.block_size = 4;
    return Llm::load({.model = QUIRE_TESTDATA "/golden/tiny/llama_gqa",
                      .engine = engine,
                      .chat_template_file = template_file_});
  }
  static std::unique_ptr<Llm> load_with_template(const std::string& text) {
    const std::string shared = template_file_;
    template_file_ += ".own";
    std::ofstream(template_file_) << text;
    Result<std::unique_ptr<Llm>> llm = load({});
    std::filesystem::remove(template_file_);
    template_file_ = shared;
    EXPECT_TRUE(llm.ok()) << llm.status().message();
    return llm.ok() ? std::move(*llm) : nullptr;
  }
  static GenerateRequest text_request(const std::string& text, int max_tokens) {
    GenerateRequest request;
    request.id = "test";
    request.prompt = text;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    return request;
  }
  struct Outcome {
    std::string text;
    std::vector<TokenId> tokens;
    std::vector<LogprobList> logprobs;
    TextDelta last;
  };
  static Outcome read_all(TextStream& stream) {
    Outcome out;
    while (std::optional<TextDelta> delta = stream.next()) {
      out.text += delta->text;
      out.tokens.insert(out.tokens.end(), delta->tokens.begin(), delta->tokens.end());
      out.last = *delta;
    }
    return out;
  }
  // By their index.
  static std::vector<Outcome> all_answers(const GenerateRequest& request) {
    Result<TextStream> stream = llm_->submit(request);
    EXPECT_TRUE(stream.ok()) << stream.status().message();
    std::vector<Outcome> answers(request.sampling.n);
    while (std::optional<TextDelta> delta = stream->next()) {
      Outcome& out = answers[delta->index];
      out.text += delta->text;
      out.tokens.insert(out.tokens.end(), delta->tokens.begin(), delta->tokens.end());
      out.logprobs.insert(out.logprobs.end(), delta->logprobs.begin(), delta->logprobs.end());
      out.last = *delta;
    }
    return answers;
  }
  static Outcome answer(GenerateRequest request) {
    Result<TextStream> stream = llm_->submit(std::move(request));
    EXPECT_TRUE(stream.ok()) << stream.status().message();
    return read_all(*stream);
  }

  static Llm* llm_;
  static std::string template_file_;
};
Llm* LlmTest::llm_ = nullptr;
std::string LlmTest::template_file_;

TEST_F(LlmTest, PollGivesTheSameAnswerToAReaderThatNeverBlocks) {
  for (const std::optional<int> best_of : {std::optional<int>(), std::optional<int>(3)}) {
    GenerateRequest request = text_request("hello world", 20);
    request.sampling.temperature = 0.8;
    request.sampling.seed = 7;
    request.output.best_of = best_of;
    const Outcome expected = [&] {
      Result<TextStream> stream = llm_->submit(request);
      return read_all(*stream);
    }();
    // The reader sleeps until it is woken: a wake-up that is missing is a hang.
    auto woken = std::make_shared<Monitor<bool>>(false);
    request.on_output = [woken] { woken->update([](bool& w) { w = true; }); };
    Result<TextStream> stream = llm_->submit(request);
    ASSERT_TRUE(stream.ok());
    std::string text;
    std::vector<TokenId> tokens;
    while (!stream->finished()) {
      const bool came = woken->wait_for(
          std::chrono::seconds(60),
          [](bool w) { return w; },
          [](bool& w) { return std::exchange(w, false); });
      ASSERT_TRUE(came) << "no wake-up after " << tokens.size() << " tokens";
      while (std::optional<TextDelta> delta = stream->poll()) {
        text += delta->text;
        tokens.insert(tokens.end(), delta->tokens.begin(), delta->tokens.end());
      }
    }
    EXPECT_TRUE(stream->admitted());
    EXPECT_EQ(text, expected.text);
    EXPECT_EQ(tokens, expected.tokens);
  }
}

TEST_F(LlmTest, PollTellsWhyTheEngineRefused) {
  GenerateRequest request = text_request("hello", 4);
  request.prompt = std::vector<TokenId>{};
  auto woken = std::make_shared<Monitor<bool>>(false);
  request.on_output = [woken] { woken->update([](bool& w) { w = true; }); };
  Result<TextStream> stream = llm_->submit(request);
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE(woken->wait_for(
      std::chrono::seconds(60), [](bool w) { return w; }, [](bool& w) { return w; }));
  const std::optional<TextDelta> delta = stream->poll();
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->finish_reason, FinishReason::kError);
  EXPECT_NE(delta->error.message().find("at least 1 token"), std::string::npos);
  EXPECT_TRUE(stream->finished());
  EXPECT_FALSE(stream->admitted());
}

TEST_F(LlmTest, StreamedTextEqualsTheWholeDecode) {
  const Outcome out = answer(text_request("hello world", 40));
  EXPECT_EQ(out.tokens.size(), 40u);
  EXPECT_EQ(out.last.finish_reason, FinishReason::kLength);
  EXPECT_EQ(out.text, *llm_->tokenizer().decode(out.tokens));
}

TEST_F(LlmTest, StopStringEndsTheAnswerBeforeIt) {
  const Outcome whole = answer(text_request("hello world", 40));
  ASSERT_GT(whole.text.size(), 12u);
  const auto boundary = [&](size_t at) {  // of a character
    while (at < whole.text.size() && (whole.text[at] & 0xC0) == 0x80) ++at;
    return at;
  };
  const size_t begin = boundary(6);
  const std::string stop = whole.text.substr(begin, boundary(begin + 3) - begin);
  GenerateRequest request = text_request("hello world", 40);
  request.output.stop = {stop};
  const Outcome out = answer(std::move(request));
  EXPECT_EQ(out.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(out.last.finish_reason, FinishReason::kStop);
  EXPECT_EQ(out.last.stop_string, stop);
}

TEST_F(LlmTest, RefusalsComeOutOfTheStreamWithTheirReason) {
  Result<TextStream> stream = llm_->submit(text_request(std::string(400'000, 'x'), 4));
  ASSERT_TRUE(stream.ok());
  const Status status = stream->wait_admitted();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("--max-model-len"), std::string::npos) << status.message();
  EXPECT_EQ(read_all(*stream).last.finish_reason, FinishReason::kError);
}

TEST_F(LlmTest, InvalidUtf8IsRefusedWithItsOffset) {
  Result<TextStream> stream = llm_->submit(text_request("abc\xff", 4));
  ASSERT_TRUE(stream.ok());
  const Status status = stream->wait_admitted();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("3"), std::string::npos) << status.message();
}

GenerateRequest sampled(GenerateRequest request, int n, uint64_t seed) {
  request.sampling.temperature = 1;
  request.sampling.n = n;
  request.sampling.seed = seed;
  return request;
}

TEST_F(LlmTest, SeveralAnswersAreThoseOfSeparateRequests) {
  const std::vector<Outcome> answers = all_answers(sampled(text_request("hello", 20), 3, 7));
  ASSERT_EQ(answers.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const uint64_t seed = i == 0 ? 7 : hash_combine(7, i);
    const Outcome alone = answer(sampled(text_request("hello", 20), 1, seed));
    EXPECT_EQ(answers[i].tokens, alone.tokens) << i;
    EXPECT_EQ(answers[i].text, alone.text) << i;
    EXPECT_EQ(answers[i].last.finish_reason, FinishReason::kLength) << i;
  }
  EXPECT_NE(answers[0].tokens, answers[1].tokens);
}

TEST_F(LlmTest, AStopStringEndsOneAnswerAndNotTheOthers) {
  const std::vector<Outcome> whole = all_answers(sampled(text_request("hello", 40), 3, 7));
  std::string stop;  // a character that only the second answer has
  for (size_t at = 0; at < whole[1].text.size() && stop.empty(); ++at) {
    const char c = whole[1].text[at];
    const bool elsewhere =
        whole[0].text.find(c) != std::string::npos || whole[2].text.find(c) != std::string::npos;
    if (at > 0 && c > ' ' && !elsewhere) stop = c;
  }
  ASSERT_FALSE(stop.empty()) << whole[0].text << whole[1].text << whole[2].text;
  GenerateRequest request = sampled(text_request("hello", 40), 3, 7);
  request.output.stop = {stop};
  const std::vector<Outcome> stopped = all_answers(request);
  EXPECT_EQ(stopped[1].text, whole[1].text.substr(0, whole[1].text.find(stop)));
  EXPECT_EQ(stopped[1].last.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped[1].last.stop_string, stop);
  for (int i : {0, 2}) {
    EXPECT_EQ(stopped[i].tokens, whole[i].tokens);
    EXPECT_EQ(stopped[i].last.finish_reason, FinishReason::kLength);
  }
}

TEST_F(LlmTest, BestOfGivesTheMostLikelyAnswersBestFirst) {
  GenerateRequest request = sampled(text_request("hello", 12), 5, 7);
  request.sampling.logprobs = 0;
  std::vector<Outcome> all = all_answers(request);
  for (const Outcome& answer : all) {
    double sum = 0;
    for (const LogprobList& list : answer.logprobs) sum += list[0].logprob;
    EXPECT_DOUBLE_EQ(*answer.last.cumulative_logprob, sum);
  }
  std::ranges::sort(
      all, std::greater(), [](const Outcome& answer) { return *answer.last.cumulative_logprob; });
  request = sampled(text_request("hello", 12), 2, 7);
  request.output.best_of = 5;
  const std::vector<Outcome> best = all_answers(request);
  ASSERT_EQ(best.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(best[i].tokens, all[i].tokens);
    EXPECT_EQ(best[i].last.cumulative_logprob, all[i].last.cumulative_logprob);
    EXPECT_TRUE(best[i].logprobs.empty()) << "nobody asked for them";
  }
}

TEST_F(LlmTest, ImpossibleNumbersOfAnswersAreRefusedWithTheReason) {
  const auto refusal = [](int n, std::optional<int> best_of, double temperature) {
    GenerateRequest request = sampled(text_request("hello", 12), n, 7);
    request.output.best_of = best_of;
    request.sampling.temperature = temperature;
    return llm_->submit(request).status().message();
  };
  const auto expect = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal(0, {}, 1), "n must be >= 1, got 0");
  expect(refusal(3, 2, 1), "best_of is 2, but must be at least n, which is 3");
  expect(refusal(1, 0, 1), "best_of is 0, but must be at least n, which is 1");
  expect(refusal(1000, {}, 1), "n is 1000, but max_num_seqs is");
  expect(refusal(1, 1000, 1), "best_of is 1000, but max_num_seqs is");
  expect(refusal(2, {}, 0), "n is 2, but with temperature 0 (greedy) all answers are the same");
  EXPECT_EQ(refusal(2, 2, 1), "");
}

TEST_F(LlmTest, MoreBeamsThanRunTogetherAreRefusedBeforeAnythingIsMadeForThem) {
  const auto refusal = [](int n, int beam_width) {
    GenerateRequest request = text_request("hello", 12);
    request.sampling.n = n;
    request.sampling.beam_width = beam_width;
    return llm_->submit(request).status().message();
  };
  EXPECT_NE(refusal(2000000000, 2000000000).find("n is 2000000000, but max_num_seqs is"),
            std::string::npos);
  EXPECT_NE(refusal(1, 1000).find("beam_width is 1000, but max_num_seqs is"), std::string::npos);
}

TEST_F(LlmTest, InvalidUtf8InAChatIsRefusedWithItsOffset) {
  GenerateRequest request = text_request("", 4);
  request.prompt = ChatPrompt{.messages = {{"system", "ok"},
                                           {"user",
                                            "ab\xff"
                                            "c"}}};
  Status status = llm_->submit(request).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "the user message is not valid UTF-8 at byte 2 (0xff): convert it to UTF-8 first");
  request.prompt = ChatPrompt{.messages_json = "[{\"role\": \"user\", \"content\": \"\xc3\"}]"};
  status = llm_->submit(request).status();
  EXPECT_NE(status.message().find("not valid UTF-8 at byte 30"), std::string::npos)
      << status.message();

  Conversation conversation(*llm_);
  EXPECT_NE(conversation.ask("a\xe2\x82")
                .status()
                .message()
                .find("user message is not valid UTF-8 at byte 1"),
            std::string::npos);
  conversation.forget_question();
  conversation.set_system("\xc0\x80");
  EXPECT_NE(
      conversation.ask("x").status().message().find("system message is not valid UTF-8 at byte 0"),
      std::string::npos);
}

TEST_F(LlmTest, StopTextsThatCanNeverBeFoundAreRefused) {
  for (const char* stop : {"", "a\xff"}) {
    GenerateRequest request = text_request("hello", 4);
    request.output.stop = {"ok", stop};
    EXPECT_EQ(llm_->submit(request).status().code(), StatusCode::kInvalidArgument) << stop;
  }
}

TEST_F(LlmTest, SpecialTokensInsideAMessageStayText) {
  ASSERT_FALSE(llm_->tokenizer().vocab_size() == 0);
  std::string special;
  for (TokenId id = 0; id < llm_->tokenizer().vocab_size() && special.empty(); ++id) {
    if (llm_->tokenizer().is_special(id)) special = *llm_->tokenizer().id_to_token(id);
  }
  ASSERT_FALSE(special.empty()) << "the tiny tokenizer has a special token";
  const ChatPrompt prompt{.messages_json =
                              "[{\"role\": \"user\", \"content\": \"a" + special + "b\"}]"};
  const Result<std::string> rendered = llm_->render(prompt);
  ASSERT_TRUE(rendered.ok()) << rendered.status().message();
  const Result<std::vector<TokenId>> ids = llm_->encode_chat(*rendered);
  ASSERT_TRUE(ids.ok());
  const TokenId id = *llm_->tokenizer().token_to_id(special);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), id), 0);
  EXPECT_NE(llm_->tokenizer().decode(*ids, false)->find("a" + special + "b"), std::string::npos);
}

TEST_F(LlmTest, ConversationAppendsTokensAndFindsItsPrefixInTheCache) {
  Conversation conversation(*llm_);
  Result<std::vector<TokenId>> first = conversation.ask("hello there my friend");
  ASSERT_TRUE(first.ok()) << first.status().message();
  GenerateRequest request = text_request("", 12);
  request.prompt = *first;
  const Outcome out = answer(request);
  conversation.answer(out.tokens, out.text);

  Result<std::vector<TokenId>> second = conversation.ask("and again");
  ASSERT_TRUE(second.ok());
  std::vector<TokenId> history = *first;
  history.insert(history.end(), out.tokens.begin(), out.tokens.end());
  ASSERT_GT(second->size(), history.size());
  EXPECT_TRUE(std::equal(history.begin(), history.end(), second->begin()));

  request.prompt = *second;
  Result<TextStream> stream = llm_->submit(request);
  ASSERT_TRUE(stream.ok());
  read_all(*stream);
  // All full blocks of 4 of what was computed: everything but the last generated token.
  EXPECT_EQ(stream->stats().num_cached_tokens, static_cast<int>((history.size() - 1) / 4 * 4));
}

// Like DeepSeek-R1's: the prompt of an answer opens its reasoning, the history holds no reasoning.
constexpr const char* kThinking =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1] | trim }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";

TEST_F(LlmTest, ATemplateThatRewritesEarlierTurnsDoesNotChangeTheirTokens) {
  const std::unique_ptr<Llm> llm = load_with_template(kThinking);
  Conversation conversation(*llm);
  std::vector<TokenId> history;
  for (const std::string question : {"one", "two", "three"}) {
    const Result<std::vector<TokenId>> prompt = conversation.ask(question);
    ASSERT_TRUE(prompt.ok()) << prompt.status().message();
    ASSERT_GT(prompt->size(), history.size());
    EXPECT_TRUE(std::equal(history.begin(), history.end(), prompt->begin())) << question;
    const std::string turn =
        "<|im_start|>user\n" + question + "<|im_end|>\n<|im_start|>assistant\n<think>\n";
    const std::string added = history.empty() ? turn : "<|im_end|>\n" + turn;
    const std::vector<TokenId> rest(prompt->begin() + static_cast<std::ptrdiff_t>(history.size()),
                                    prompt->end());
    EXPECT_EQ(rest, *llm->encode_chat(added)) << question;
    const std::string text = "so " + question + "</think> yes";
    const std::vector<TokenId> answer =
        *llm->tokenizer().encode(text, {.add_special_tokens = false});
    conversation.answer(answer, text);
    history = *prompt;
    history.insert(history.end(), answer.begin(), answer.end());
  }
}

TEST_F(LlmTest, ATemplateThatChangesAnswersStillEndsTheirTurn) {
  const std::unique_ptr<Llm> llm = load_with_template(
      "{% for m in messages %}[{{ m.role | upper }}]{{ m.content | trim | upper }}[END]{% endfor %}"
      "{% if add_generation_prompt %}[ASSISTANT]{% endif %}");
  Conversation conversation(*llm);
  const std::vector<TokenId> first = *conversation.ask("one");
  const std::vector<TokenId> said =
      *llm->tokenizer().encode(" Well ", {.add_special_tokens = false});
  conversation.answer(said, " Well ");
  std::vector<TokenId> expected = first;
  expected.insert(expected.end(), said.begin(), said.end());
  const std::vector<TokenId> rest = *llm->encode_chat("[END][USER]TWO[END][ASSISTANT]");
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(*conversation.ask("two"), expected);
}

TEST_F(LlmTest, ATemplateWithoutMemoryGetsItsWholeRendering) {
  const std::unique_ptr<Llm> llm = load_with_template("Translate: {{ messages[-1].content }} =>");
  Conversation conversation(*llm);
  ASSERT_TRUE(conversation.ask("one").ok());
  conversation.answer({1, 2, 3}, "un");
  EXPECT_EQ(*conversation.ask("two"), *llm->encode_chat("Translate: two =>"));
}

TEST_F(LlmTest, AForgottenQuestionLeavesTheConversationAsItWas) {
  Conversation conversation(*llm_);
  conversation.set_system("be brief");
  const std::string before = conversation.messages_json();
  ASSERT_TRUE(conversation.ask("one").ok());
  conversation.forget_question();
  EXPECT_EQ(conversation.messages_json(), before);
}

TEST_F(LlmTest, DroppedStreamsFreeTheirBlocks) {
  for (int i = 0; i < 20; ++i) {
    Result<TextStream> stream = llm_->submit(text_request("hello world", 100));
    ASSERT_TRUE(stream.ok());
    if (i % 2 == 0) stream->next();
  }
  answer(text_request("last", 2));
  EXPECT_EQ(llm_->stats().num_used_blocks, 0);
  EXPECT_EQ(llm_->stats().num_running, 0);
}

}  // namespace
}  // namespace quire
