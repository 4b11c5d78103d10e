#include "apps/answer_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace quire {

Result<std::unique_ptr<AnswerFile>> AnswerFile::open(const std::string& path) {
  std::unique_ptr<AnswerFile> file(new AnswerFile);
  file->path_ = path;
  std::error_code error;
  if (std::filesystem::exists(path, error)) QUIRE_RETURN_IF_ERROR(file->keep_answers(path));
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

Status AnswerFile::keep_answers(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return unavailable("cannot read " + path + " to resume from it: " + std::strerror(errno));
  const std::string kept_path = path + ".resume";
  std::ofstream kept(kept_path, std::ios::binary | std::ios::trunc);
  std::string line;
  while (std::getline(in, line)) {
    const bool torn = in.eof();  // no newline at its end
    const Result<Json> record = parse_json_document(line);
    if (torn || !record.ok() || !record->is_object() || !record->contains("id") ||
        record->contains("error")) {
      continue;
    }
    answered_ids_.insert(dump_json((*record)["id"]));
    kept << line << '\n';
  }
  kept.close();
  std::error_code error;
  if (kept) std::filesystem::rename(kept_path, path, error);
  if (!kept || error) return unavailable("cannot write " + kept_path + " while resuming " + path);
  return {};
}

Status AnswerFile::append(const Json& record) {
  const std::string line = dump_json(record) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0) {
    return unavailable("cannot write " + path_ + ": " + std::strerror(errno) +
                       "; free some space and run the same command again to resume");
  }
  return {};
}

Result<std::unique_ptr<InputLines>> InputLines::open(
    const std::string& path, const std::unordered_set<std::string>& answered_ids) {
  std::unique_ptr<InputLines> lines(new InputLines);
  lines->answered_ids_ = answered_ids;
  std::ifstream count(path, std::ios::binary);
  if (!count) return not_found("cannot read " + path + ": " + std::strerror(errno));
  std::string line;
  while (std::getline(count, line)) lines->total_lines_ += line.empty() ? 0 : 1;
  lines->file_.open(path, std::ios::binary);
  if (!lines->file_) return not_found("cannot read " + path + ": " + std::strerror(errno));
  return lines;
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
    if (!line.status.ok() || !answered_ids_.contains(dump_json(line.id))) return line;
    ++num_skipped_;
  }
  return std::nullopt;
}

InputLine InputLines::parse(const std::string& text) {
  InputLine line;
  line.number = line_number_;
  line.id = line_number_;
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
  if (!line.id.is_string() && !line.id.is_number_integer()) {
    line.status = invalid_argument("\"id\" must be a string or an integer");
    line.id = line_number_;
  } else if (!seen_ids_.insert(dump_json(line.id)).second) {
    line.status = invalid_argument("id " + dump_json(line.id) + " was used on an earlier line");
  }
  return line;
}

}  // namespace quire
