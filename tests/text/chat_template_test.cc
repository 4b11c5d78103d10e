#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <ctime>
#include <thread>
#include <vector>

namespace quire {
namespace {

Result<std::string> render(const std::string& source, const std::string& context = "{}") {
  QUIRE_ASSIGN_OR_RETURN(const ChatTemplate compiled, ChatTemplate::compile(source));
  return compiled.render(context);
}

void expect_error(const Result<std::string>& result, StatusCode code, const std::string& part) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), code) << result.status().message();
  EXPECT_NE(result.status().message().find(part), std::string::npos) << result.status().message();
}

TEST(ChatTemplate, SyntaxErrorNamesTheLine) {
  expect_error(render("one\ntwo\n{% if %}\n"), StatusCode::kDataLoss, "line 3");
  expect_error(render("{% for x in y %}"), StatusCode::kDataLoss, "line 1");
  expect_error(render("{{ 'open"), StatusCode::kDataLoss, "line 1");
  expect_error(render("\xff{{ x }}"), StatusCode::kDataLoss, "not valid UTF-8 at byte 0");
}

TEST(ChatTemplate, ErrorsOfTheTemplateNameTheLine) {
  expect_error(render("\n{{ nothing.at.all }}"), StatusCode::kInvalidArgument, "line 2");
  expect_error(render("{{ 'a' + 1 }}"), StatusCode::kInvalidArgument, "unsupported operand types");
  expect_error(render("\n\n{{ x | nofilter }}"), StatusCode::kInvalidArgument, "nofilter");
}

TEST(ChatTemplate, RaiseExceptionGivesItsTextAlone) {
  const auto result =
      render("{% macro f() %}{{ raise_exception('roles: ' ~ [1]) }}{% endmacro %}{{ f() }}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(result.status().message(), "roles: [1]");
}

TEST(ChatTemplate, ContextMustBeAJsonObject) {
  expect_error(render("x", "[1]"), StatusCode::kInvalidArgument, "must be a JSON object");
  expect_error(render("x", "{\"a\":"), StatusCode::kInvalidArgument, "not valid JSON");
  expect_error(render("x", "\xff"), StatusCode::kInvalidArgument, "not valid JSON");
  expect_error(render("x", std::string(100000, '[')), StatusCode::kInvalidArgument, "JSON");
}

TEST(ChatTemplate, TimeIsTheLocalTimeUnlessGiven) {
  const ChatTemplate compiled =
      ChatTemplate::compile("{{ strftime_now('%Y-%m-%d %H:%M') }}").value();
  EXPECT_EQ(*compiled.render("{}", {.local_seconds = 951782400}), "2000-02-29 00:00");
  EXPECT_EQ(*compiled.render("{}", {.local_seconds = -1}), "1969-12-31 23:59");
  const std::time_t now = std::time(nullptr);
  char expected[32];
  std::tm local = {};
  std::strftime(expected, sizeof expected, "%Y-%m-%d", localtime_r(&now, &local));
  EXPECT_EQ(compiled.render("{}")->substr(0, 10), expected);
}

TEST(ChatTemplate, StrftimeEqualsTheCLibraryOnEveryDayOfFortyYears) {
  const std::string format = "%Y %G %V %U %W %j %u %w %a %b %d %e %y %I %p %c";
  const ChatTemplate compiled =
      ChatTemplate::compile("{{ strftime_now('" + format + "') }}").value();
  for (int64_t day = 0; day < 40 * 366; day += 3) {
    const std::time_t seconds = day * 86400 + 3600 * (day % 24);
    std::tm utc = {};
    char expected[128];
    std::strftime(expected, sizeof expected, format.c_str(), gmtime_r(&seconds, &utc));
    ASSERT_EQ(*compiled.render("{}", {.local_seconds = seconds}), expected) << day;
  }
}

// Each would take all memory, all time or the stack without a limit.
TEST(ChatTemplate, HostileTemplatesEndWithAnError) {
  std::string doubling = "{% set x = 'xxxxxxxxxxxxxxxx' %}";
  std::string joining = doubling, adding = doubling, captures = doubling, replacing = doubling;
  std::string lists = "{% set x = [1, 2] %}";
  for (int i = 0; i < 60; ++i) {
    doubling += "{% set x = x ~ x %}";
    adding += "{% set x = x + x %}";
    joining += "{% set x = [x, x, x] | join(x) %}";
    captures += "{% set x %}{{ x }}{{ x }}{% endset %}";
    replacing += "{% set x = x.replace('x', x) %}";
    lists += "{% set x = x + x %}";
  }
  const std::pair<const char*, std::string> cases[] = {
      {"endless",
       "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
       "{% endfor %}{% endfor %}{% endfor %}"},
      {"recursion", "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"},
      {"doubling", doubling},
      {"adding", adding},
      {"joining", joining},
      {"captures", captures},
      {"replacing", replacing},
      {"lists", lists},
      {"repeat", "{{ 'abc' * 99999999999 }}"},
      {"output",
       "{% for a in range(9999) %}{% for b in range(9999) %}" + std::string(100000, 'x') +
           "{% endfor %}{% endfor %}"},
      {"range", "{{ range(99999999999) | list }}"},
      {"indent", "{{ 'a\nb' | indent(99999999999) }}"},
      {"nesting",
       "{% set ns = namespace(x=[]) %}{% for a in range(999) %}{% for b in range(999) %}"
       "{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}{{ ns.x | tojson }}"},
      {"deep expression", "{{ " + std::string(100000, '(') + std::string(100000, ')') + " }}"},
  };
  for (const auto& [name, source] : cases) {
    EXPECT_FALSE(render(source).ok()) << name;
  }
}

TEST(ChatTemplate, ALongConversationIsWithinTheLimits) {
  std::string context = R"({"messages": [)";
  for (int i = 0; i < 5000; ++i) {
    context += std::string(i ? "," : "") + R"({"role": "user", "content": ")" +
               std::string(400, 'a') + "\"}";
  }
  context += "]}";
  const auto text = render(
      "{% for m in messages %}{{ '<' + m.role + '>' + m['content'] | trim }}{% endfor %}", context);
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ(text->size(), 5000u * 406);
}

TEST(ChatTemplate, OneTemplateRendersOnManyThreads) {
  const ChatTemplate compiled =
      ChatTemplate::compile("{% for i in x %}{{ i }},{% endfor %}").value();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&compiled, t] {
      const std::string context = "{\"x\": [" + std::to_string(t) + ", 7]}";
      for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(*compiled.render(context), std::to_string(t) + ",7,");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace quire
