#include "apps/answer_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/mutants.h"

namespace quire {

namespace fs = std::filesystem;

namespace {

bool is_answer(const Json& record) {
  if (!record.is_object() || !record.contains("id")) return false;
  if (record["id"].is_null() && !(record.contains("line") && record["line"].is_number_integer())) {
    return false;
  }
  const auto holds = [&](const char* key) {
    return record.contains(key) && record[key].is_string();
  };
  const bool has_choices = record.contains("choices") && record["choices"].is_array();
  return holds("text") || has_choices || holds("error");
}

// The beginning of a record that a killed run left: append() writes "id" first.
bool is_torn_record(std::string_view line) {
  constexpr std::string_view kBegin = "{\"id\":";
  return line.substr(0, kBegin.size()) == kBegin.substr(0, line.size());
}

Status not_answers(const std::string& path, int64_t line) {
  return invalid_argument(path + " is not an answer file (line " + std::to_string(line) +
                          "), and is left as it is: move it away or name another --output");
}

}  // namespace

std::string record_key(const Json& id, int64_t line) {
  return id.is_null() ? "line " + std::to_string(line) : dump_json(id);
}

Result<std::unique_ptr<AnswerFile>> AnswerFile::open(const std::string& path,
                                                     const std::string& input_path) {
  std::unique_ptr<AnswerFile> file(new AnswerFile);
  file->path_ = path;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    return invalid_argument(path + " is a directory; name a file with --output");
  }
  if (fs::equivalent(path, input_path, error)) {
    return invalid_argument("--input " + input_path + " and --output " + path +
                            " are the same file: name another --output");
  }
  if (fs::is_regular_file(status)) {
    QUIRE_ASSIGN_OR_RETURN(const std::unordered_set<int64_t> to_drop, file->read_answers());
    if (!to_drop.empty()) QUIRE_RETURN_IF_ERROR(file->drop_lines(to_drop));
  }
  file->file_ = std::fopen(path.c_str(), "ab");
  if (file->file_ == nullptr) {
    return unavailable("cannot write " + path + ": " + std::strerror(errno) +
                       "; give a writable file with --output");
  }
  return file;
}

AnswerFile::~AnswerFile() {
  if (file_ != nullptr) std::fclose(file_);
}

Result<std::unordered_set<int64_t>> AnswerFile::read_answers() {
  std::ifstream in(path_, std::ios::binary);
  if (!in) {
    return unavailable("cannot read " + path_ + " to resume from it: " + std::strerror(errno));
  }
  std::unordered_set<int64_t> to_drop;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    const bool ends = !in.eof();  // with a newline
    const Result<Json> record = parse_json_document(line);
    const bool answer = record.ok() && is_answer(*record);
    const bool torn = !ends && (answer || (!record.ok() && is_torn_record(line)));
    if (!answer && !torn) return not_answers(path_, number);
    if (torn && mutant("apps_keeps_torn_line")) continue;
    if (torn || record->contains("error")) {
      to_drop.insert(number);
    } else {
      const Json& of = *record;
      answered_.insert(record_key(of["id"], of.contains("line") ? of["line"].get<int64_t>() : 0));
    }
  }
  return to_drop;
}

Status AnswerFile::drop_lines(const std::unordered_set<int64_t>& to_drop) {
  std::error_code error;
  const fs::path target = fs::canonical(path_, error);  // a symbolic link stays one
  std::string temporary = target.string() + ".resume-XXXXXX";
  const int fd = error ? -1 : mkstemp(temporary.data());
  if (fd < 0) {
    return unavailable("cannot resume " + path_ + ": no file can be made next to it: " +
                       (error ? error.message() : std::strerror(errno)));
  }
  (void)fchmod(fd, static_cast<mode_t>(fs::status(target, error).permissions()));
  close(fd);
  std::ifstream in(target, std::ios::binary);
  std::ofstream kept(temporary, std::ios::binary);
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (!to_drop.contains(number)) kept << line << '\n';
  }
  kept.close();
  if (kept && !in.bad()) fs::rename(temporary, target, error);
  if (kept && !in.bad() && !error) return {};
  std::error_code ignored;
  fs::remove(temporary, ignored);
  return unavailable("cannot write a file next to " + path_ +
                     " to resume from it: free some space and run the same command again");
}

Status AnswerFile::append(const Json& record) {
  const std::string line = dump_json(record) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0) {
    return unavailable("cannot write " + path_ + ": " + std::strerror(errno) +
                       "; free some space and run the same command again to resume");
  }
  return {};
}

Result<std::unique_ptr<InputLines>> InputLines::open(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    return invalid_argument(
        "--input " + path +
        (fs::is_directory(status) ? " is a directory" : " is a pipe or device") +
        "; give a file, which is read twice");
  }
  std::unique_ptr<InputLines> lines(new InputLines);
  std::ifstream count(path, std::ios::binary);
  if (!count) return not_found("cannot read " + path + ": " + std::strerror(errno));
  std::string line;
  while (std::getline(count, line)) lines->total_lines_ += line.empty() ? 0 : 1;
  lines->file_.open(path, std::ios::binary);
  if (!lines->file_) return not_found("cannot read " + path + ": " + std::strerror(errno));
  return lines;
}

void InputLines::skip(std::unordered_set<std::string> answered) {
  std::lock_guard lock(mutex_);
  answered_ = std::move(answered);
}

void InputLines::stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
}

int64_t InputLines::num_skipped() const {
  std::lock_guard lock(mutex_);
  return num_skipped_;
}

std::optional<InputLine> InputLines::next() {
  std::lock_guard lock(mutex_);
  std::string text;
  while (!stopped_ && std::getline(file_, text)) {
    ++line_number_;
    if (text.empty()) continue;
    InputLine line = parse(text);
    if (!line.status.ok() || !answered_.contains(record_key(line.id, line.number))) return line;
    ++num_skipped_;
  }
  return std::nullopt;
}

InputLine InputLines::parse(const std::string& text) {
  InputLine line;
  line.number = line_number_;
  if (text.size() > kMaxInputLineBytes) {
    line.status =
        invalid_argument("the line has " + std::to_string(text.size()) + " bytes; at most " +
                         std::to_string(kMaxInputLineBytes) + " are allowed");
    return line;
  }
  Result<Json> object = parse_json_document(text);
  if (!object.ok()) {
    line.status = object.status();
    return line;
  }
  line.object = std::move(*object);
  if (line.object.is_object() && line.object.contains("id")) line.id = line.object["id"];
  if (!line.id.is_string() && !line.id.is_number_integer() && !line.id.is_null()) {
    line.status = invalid_argument("\"id\" must be a string or an integer");
    line.id = nullptr;
  } else if (!seen_.insert(record_key(line.id, line.number)).second) {
    line.status = invalid_argument("id " + dump_json(line.id) + " was used on an earlier line");
  }
  return line;
}

}  // namespace quire
