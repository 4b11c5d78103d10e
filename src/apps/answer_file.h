// The files of quire generate: input lines, and an output that a killed run can be resumed from.
#pragma once

#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_set>

#include "base/status.h"
#include "frontend/json.h"

namespace quire {

// Answers, one JSON object a line. open() keeps the complete records of an existing file, drops a
// torn last line and the records of failed lines (they are tried again), and does so atomically.
class AnswerFile {
 public:
  static Result<std::unique_ptr<AnswerFile>> open(const std::string& path);
  ~AnswerFile();
  // Written and flushed before it returns, so that a killed run loses nothing that was reported.
  Status append(const Json& record);
  const std::unordered_set<std::string>& answered_ids() const { return answered_ids_; }

 private:
  AnswerFile() = default;
  Status keep_answers(const std::string& path);

  std::string path_;
  std::FILE* file_ = nullptr;
  std::unordered_set<std::string> answered_ids_;  // ids as JSON text
};

inline constexpr size_t kMaxInputLineBytes = 16 << 20;

struct InputLine {
  int64_t number = 0;  // from 1
  Json id;             // the object's "id", else the line's number
  Json object;
  Status status;  // why the line is not a JSON object with a fresh id
};

// Thread-safe.
class InputLines {
 public:
  static Result<std::unique_ptr<InputLines>> open(
      const std::string& path, const std::unordered_set<std::string>& answered_ids);
  // The next line that is not empty and not answered; nullopt at the end or after stop().
  std::optional<InputLine> next();
  void stop();
  int64_t total_lines() const { return total_lines_; }  // not empty
  int64_t num_skipped() const;

 private:
  InputLines() = default;
  InputLine parse(const std::string& text);

  std::ifstream file_;
  mutable std::mutex mutex_;  // guards what follows and file_
  std::unordered_set<std::string> answered_ids_, seen_ids_;
  int64_t total_lines_ = 0, line_number_ = 0, num_skipped_ = 0;
  bool stopped_ = false;
};

}  // namespace quire
