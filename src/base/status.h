// Errors as values. What input or the environment can cause returns Status or Result<T>; what only
// a bug can cause is QUIRE_CHECK (base/check.h). A message says what was got, what was allowed, and
// what to do about it.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace quire {

// The value is the exit code of the command line (README, table of exit codes).
enum class StatusCode : int {
  kOk = 0,
  kInternal = 1,           // a bug, reported instead of crashing
  kInvalidArgument = 2,    // flags, requests, prompts
  kNotFound = 3,           // no such file, model or tensor
  kDataLoss = 4,           // a damaged or truncated file
  kUnsupported = 5,        // a well-formed input that quire does not implement
  kResourceExhausted = 6,  // memory, KV blocks, queue places
  kUnavailable = 7,        // I/O failed, disk full, shutting down
  kCancelled = 130,        // the user interrupted
};

const char* status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {
    QUIRE_CHECK(code != StatusCode::kOk);
  }
  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // The same status with `context` and ": " put before the message, e.g. the file's name.
  Status with_context(const std::string& context) const {
    return ok() ? Status() : Status(code_, context + ": " + message_);
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status invalid_argument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status not_found(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status data_loss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }
inline Status resource_exhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status internal_error(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

// A value or the Status that explains its absence.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) { QUIRE_CHECK(!status_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & {
    QUIRE_CHECK_MSG(ok(), status_.message().c_str());
    return *value_;
  }
  const T& value() const& {
    QUIRE_CHECK_MSG(ok(), status_.message().c_str());
    return *value_;
  }
  T&& value() && {
    QUIRE_CHECK_MSG(ok(), status_.message().c_str());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace quire

#define QUIRE_CONCAT_INNER(a, b) a##b
#define QUIRE_CONCAT(a, b) QUIRE_CONCAT_INNER(a, b)

#define QUIRE_RETURN_IF_ERROR(expr)                                  \
  do {                                                               \
    if (::quire::Status quire_status = (expr); !quire_status.ok()) { \
      return quire_status;                                           \
    }                                                                \
  } while (false)

// QUIRE_ASSIGN_OR_RETURN(auto file, open(path));
#define QUIRE_ASSIGN_OR_RETURN(lhs, expr) \
  QUIRE_ASSIGN_OR_RETURN_INNER(QUIRE_CONCAT(quire_result_, __LINE__), lhs, expr)
#define QUIRE_ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                                 \
  if (!result.ok()) return result.status();             \
  lhs = std::move(result).value()
