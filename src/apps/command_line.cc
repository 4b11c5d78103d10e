#include "apps/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <sstream>

#include "apps/human_integer.h"
#include "apps/parse_errors.h"

namespace quire {
namespace {

// What CLI11 expects of a check that fails.
void throw_unless_ok(const Status& status) {
  if (!status.ok()) throw CLI::ValidationError(status.message());
}

// Rewrites an option's text into plain digits.
std::string to_digits(std::string& text) {
  const Result<int64_t> value = parse_human_integer(text);
  if (!value.ok()) return value.status().message();
  text = std::to_string(*value);
  return "";
}

}  // namespace

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::group(const std::string& heading) {
  option_->group(heading);
  return *this;
}

Option& Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Option& Option::shows_default() {
  option_->capture_default_str();
  return *this;
}

Option& Option::one_value_each() {
  option_->allow_extra_args(false);
  return *this;
}

Option& Option::separated_by(char separator) {
  option_->delimiter(separator);
  return *this;
}

Option& Option::excludes(const std::string& name) {
  option_->excludes(name);
  return *this;
}

Option& Option::human_integer() {
  option_->transform(CLI::Validator(to_digits, "INT"));
  option_->type_name("INT");
  return *this;
}

Option& Option::within(int64_t least, int64_t most) {
  const auto check = [least, most](const std::string& text) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    if (whole && value >= least && value <= most) return std::string();
    return "\"" + text + "\" is not a whole number from " + std::to_string(least) + " to " +
           std::to_string(most);
  };
  option_->check(CLI::Validator(check, "INT"));
  return *this;
}

Option& Option::one_of(const std::vector<std::string>& values) {
  option_->check(CLI::IsMember(values));
  return *this;
}

CommandLine::CommandLine(const std::string& name,
                         const std::string& help,
                         const std::string& version)
    : owner_(std::make_shared<CLI::App>(help, name)) {
  app_ = owner_.get();
  if (!version.empty()) app_->set_version_flag("--version", version);
  app_->get_formatter()->column_width(36);
}

CommandLine CommandLine::subcommand(const std::string& name, const std::string& help) {
  return CommandLine(app_->add_subcommand(name, help));
}

template <typename T>
Option CommandLine::option(const std::string& names, T& value, const std::string& help) {
  return Option(app_->add_option(names, value, help));
}

template Option CommandLine::option(const std::string&, std::string&, const std::string&);
template Option CommandLine::option(const std::string&, int&, const std::string&);
template Option CommandLine::option(const std::string&, int64_t&, const std::string&);
template Option CommandLine::option(const std::string&, uint64_t&, const std::string&);
template Option CommandLine::option(const std::string&, double&, const std::string&);
template Option CommandLine::option(const std::string&, std::optional<int>&, const std::string&);
template Option CommandLine::option(const std::string&, std::optional<double>&, const std::string&);
template Option CommandLine::option(const std::string&,
                                    std::vector<std::string>&,
                                    const std::string&);
template Option CommandLine::option(const std::string&, std::vector<int>&, const std::string&);
template Option CommandLine::option(const std::string&, std::vector<int64_t>&, const std::string&);

Option CommandLine::option(const std::string& names,
                           std::function<Status(const std::string&)> parse,
                           const std::string& help) {
  return Option(app_->add_option_function<std::string>(
      names, [parse](const std::string& text) { throw_unless_ok(parse(text)); }, help));
}

Option CommandLine::options(const std::string& names,
                            std::function<Status(const std::vector<std::string>&)> parse,
                            const std::string& help) {
  using Words = std::vector<std::string>;
  return Option(app_->add_option_function<Words>(
      names, [parse](const Words& words) { throw_unless_ok(parse(words)); }, help));
}

Option CommandLine::flag(const std::string& names, bool& value, const std::string& help) {
  return Option(app_->add_flag(names, value, help));
}

void CommandLine::footer(const std::string& text) { app_->footer(text); }

void CommandLine::when_parsed(std::function<Status()> check) {
  app_->parse_complete_callback([check] { throw_unless_ok(check()); });
}

void CommandLine::needs_subcommand() { app_->require_subcommand(1); }

bool CommandLine::has(const std::string& name) const {
  return app_->get_option_no_throw(name) != nullptr;
}

bool CommandLine::given(const std::string& name) const {
  const CLI::Option* option = app_->get_option_no_throw(name);
  return option != nullptr && option->count() > 0;
}

bool CommandLine::parsed() const { return app_->parsed(); }

std::string CommandLine::version() const { return app_->version(); }

CommandLine CommandLine::program() const {
  CLI::App* root = app_;
  while (root->get_parent() != nullptr) root = root->get_parent();
  return CommandLine(root);
}

Result<std::optional<std::string>> CommandLine::parse(const std::vector<std::string>& words) {
  QUIRE_RETURN_IF_ERROR(check_command_words(*app_, words));
  try {
    app_->parse(
        std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes them from the end
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    app_->exit(help, text, text);
    return std::optional(text.str());
  } catch (const CLI::ParseError& error) {
    return explain_parse_error(*app_, error);
  }
  return std::optional<std::string>();
}

}  // namespace quire
