#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
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

// MiB of /proc/self/status, "VmHWM:" or "VmRSS:".
int64_t memory_mib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kib = 0;
  while (status >> word) {
    if (word == name && status >> kib) break;
  }
  return kib / 1024;
}

// A sanitizer keeps freed memory: what is resident then says nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsMeasured = false;
#else
constexpr bool kMemoryIsMeasured = true;
#endif

// Most memory that `call` adds to what is resident before it.
template <class Call>
int64_t peak_mib(Call call) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // resets VmHWM
  const int64_t before = memory_mib("VmRSS:");
  call();
  return memory_mib("VmHWM:") - before;
}

// Each makes as much as it can with few steps, so that the limit of memory must end it.
TEST(ChatTemplate, MemoryIsBoundedWhateverTheTemplateDoes) {
  const std::string big = "{% set n = 400000 %}{% set x = 'abcdefghijklmnop,' * n %}";  // 6.8 MB
  const std::string keep = "{% set ns = namespace(x=[]) %}";
  const auto forever = [&](const std::string& body) {
    return keep + "{% for a in range(9999) %}{% for b in range(9999) %}" + body +
           "{% endfor %}{% endfor %}";
  };
  const std::pair<const char*, std::string> cases[] = {
      {"slices", big + forever("{% set ns.x = [ns.x, x[1:]] %}")},
      {"reversed", big + forever("{% set ns.x = [ns.x, x[::-1]] %}")},
      {"upper", big + forever("{% set ns.x = [ns.x, x | upper] %}")},
      {"upper method", big + forever("{% set ns.x = [ns.x, x.upper()] %}")},
      {"escape",
       "{% set n = 20000000 %}{% set x = '<' * n %}" + forever("{% set ns.x = [ns.x, x | e] %}")},
      {"strip", big + forever("{% set ns.x = [ns.x, x.strip('a')] %}")},
      {"replace",
       "{% set n = 99999 %}{% set x = 'a' * n %}{% set y = x.replace('a', x) %}{{ y | length }}"},
      {"split", "{% set n = 30000000 %}{% set x = ',' * n %}{% set y = x.split(',') %}"},
      {"split spaces", "{% set n = 20000000 %}{% set x = 'a ' * n %}{% set y = x.split() %}"},
      {"splitlines", "{% set n = 30000000 %}{% set x = '\n' * n %}{% set y = x.splitlines() %}"},
      {"characters", "{% set n = 30000000 %}{% set x = 'a' * n %}{% set y = x | list %}"},
      {"sorted", "{% set n = 30000000 %}{% set x = 'a' * n %}{% set y = x | sort %}"},
      {"repeat", "{% set n = 99999999 %}{% set y = 'abc' * n %}"},
      {"list", "{% set n = 99999999 %}{% set y = [1] * n %}"},
      {"tuple", "{% set n = 99999999 %}{% set y = (1, 2) * n %}"},
      {"constant list", "{{ [1] * 99999999 }}"},
      {"constant tuple", "{% set x = (1, 2) * 99999999 %}{{ x | length }}"},
      {"constant text", "{{ ('abcdef' * 9999) * 9999 }}"},
      {"many constants",
       [] {
         std::string source;
         for (int i = 0; i < 5000; ++i) source += "{% set x = 'a' * 99999 %}";
         return source;
       }()},
      {"tojson", big + "{{ ([x] * n) | tojson }}"},
      {"written", big + "{{ [x] * n }}"},
      {"join", big + "{% set y = ([x] * n) | join %}"},
      {"sum", big + "{% set y = ([x] * n) | sum(start='') %}"},
      {"sum of lists", "{% set n = 99999 %}{% set y = ([[1] * 9999] * n) | sum(start=[]) %}"},
      {"concatenation", big + forever("{% set ns.x = [ns.x, x ~ 1] %}")},
      {"maps", forever("{% set ns.x = {'a': ns.x, 'b': [1, 2, 3], 'c': {}} %}")},
      {"lists", forever("{% set ns.x = [ns.x, [1, b], (a, b)] %}")},
      {"dict",
       keep + "{% set ns.m = dict(a=1) %}{% for a in range(99999) %}"
              "{% for b in range(99999) %}{% set ns.x = [ns.x, dict(ns.m, b=b, c=a)] %}"
              "{% endfor %}{% endfor %}"},
      {"captures", big + forever("{% set y %}{{ x }}{% endset %}{% set ns.x = [ns.x, y] %}")},
      {"raw captures",
       forever("{% set y %}" + std::string(100000, 'x') +
               "{% endset %}{% set ns.x = [ns.x, y] %}")},
      {"short raw text",
       forever("{% set y %}abcdefghijklmno{% endset %}{% set ns.x = [ns.x, y] %}")},
      {"macros",
       forever("{% macro f(a, b=1, c=2) %}{{ a }}{{ ns }}{% endmacro %}"
               "{% set ns.x = [ns.x, f] %}")},
      {"output",
       "{% for a in range(9999) %}{% for b in range(9999) %}" + std::string(1000, 'x') +
           "{% endfor %}{% endfor %}"},
      {"indent", big + "{% set y = x.replace(',', '\n') | indent(9999) %}"},
      {"items",
       "{% set ns = namespace(x={}) %}" +
           forever("{% set ns.x = [ns.x, {'a': b}.items() | list] %}")},
      {"ranges", forever("{% set ns.x = [ns.x, range(99999) | list] %}")},
  };
  for (const auto& [name, source] : cases) {
    Result<std::string> result = std::string();
    const auto start = std::chrono::steady_clock::now();
    const int64_t peak = peak_mib([&] { result = render(source); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_FALSE(result.ok()) << name;
    EXPECT_TRUE(peak < 256 || !kMemoryIsMeasured)
        << name << " took " << peak << " MiB: " << result.status().message();
    std::printf("%-16s %4lld MiB %5.2f s  %s\n",
                name,
                static_cast<long long>(peak),
                seconds.count(),
                result.status().message().substr(0, 80).c_str());
  }
  expect_error(render(cases[0].second),
               StatusCode::kResourceExhausted,
               "the chat template needs more than 256 MiB of memory");
}

TEST(ChatTemplate, SearchesOfHugeTextsEnd) {
  const std::string loop =
      "{% set n = 9999999 %}{% set x = 'a' * n %}{% set y = x ~ 'b' %}{% for a in range(9999) %}"
      "{% for b in range(9999) %}{% if 'ab' in x or x == y %}1{% endif %}{% endfor %}{% endfor %}";
  expect_error(render(loop), StatusCode::kResourceExhausted, "reads more than 2 GiB of text");
}

TEST(ChatTemplate, OperatorsComputeAsPythonDoes) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ 'hello'[1:3] }}{{ 'hello'[-3:] }}{{ 'hello'[:-1] }}{{ 'hello'[::-1] }}",
       "elllohellolleh"},
      {"{{ 'h\u00e4ll\u00f6'[1:2] }}{{ 'hello'[9:] }}{{ 'hello'[3:1] }}|", "\u00e4|"},
      {"{{ 'hello'[-9:2] }}{{ 'hello'[3:0:-1] }}{{ 'hello'[::2] }}{{ 'hello'[:1:-2] }}",
       "hellehlool"},
      {"{{ [1, 2, 3, 4][1:] }}{{ [1, 2, 3][::-1] }}{{ (1, 2, 3)[:2] }}{{ [1, 2][5:] }}",
       "[2, 3, 4][3, 2, 1](1, 2)[]"},
      {"{{ range(5)[1:3] }}{{ missing[1:] }}", "[1, 2][]"},
      {"{% set n = 3 %}{{ 'ab' * n }}{{ [0] * n }}{{ n * (1, 2) }}{{ [] * n }}",
       "ababab[0, 0, 0](1, 2, 1, 2, 1, 2)[]"},
      {"{% set n = 3 %}{{ [n] + [4] }}{{ (n,) + (4,) }}{{ n ~ none }}", "[3, 4](3, 4)3None"},
      {"{% set n = 3 %}{{ {'a': n, 'b': [n]} }}{{ n in [1, n] }}{{ 'x' not in 'abc' }}",
       "{'a': 3, 'b': [3]}TrueTrue"},
      {"{% set n = 3 %}{{ n == 3 }}{{ n != 3 }}{{ 'a' < 'b' }}{{ n >= 4 }}{{ 1 < n < 4 }}",
       "TrueFalseTrueFalseTrue"},
      {"{{ [1, 2.5]|sum }}{{ [[1], [2]]|sum(start=[]) }}{{ [{'a': 1}, {'a': 2}]|sum('a') }}",
       "3.5[1, 2]3"},
      {"{% for i in range(3) %}a long raw text, {{ i }}{% if loop.last %} the end of this"
       "{% else %} and one more; {% endif %}{% endfor %}",
       "a long raw text, 0 and one more; a long raw text, 1 and one more; a long raw text, 2 the "
       "end of this"},
      {"{% macro f(x) %}the macro's own long text {{ x }}{% endmacro %}{{ f(1) }}|{{ f(2) }}",
       "the macro's own long text 1|the macro's own long text 2"},
  };
  for (const auto& [source, expected] : cases) {
    const Result<std::string> text = render(source);
    ASSERT_TRUE(text.ok()) << source << ": " << text.status().message();
    EXPECT_EQ(*text, expected) << source;
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
