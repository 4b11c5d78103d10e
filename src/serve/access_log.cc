#include "serve/access_log.h"

#include <cstdio>
#include <ctime>

namespace quire {

namespace {

std::string timestamp(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto since = now.time_since_epoch();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(since).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char date[32], text[48];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(milliseconds));
  return text;
}

std::string quoted(const std::string& value) {
  bool plain = !value.empty();
  for (const char c : value)
    plain = plain && c > ' ' && c != '"' && c != '=' && c != '\\' && c != 127;
  if (plain) return value;
  std::string out = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 32 || byte == 127) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\x%02x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

}  // namespace

std::string log_line(const char* level,
                     const char* event,
                     const HttpHeaders& fields,
                     std::chrono::system_clock::time_point now) {
  std::string line = "time=" + timestamp(now) + " level=" + level + " event=" + event;
  for (const auto& [key, value] : fields) line += " " + key + "=" + quoted(value);
  return line + "\n";
}

std::string access_log_line(const HttpRecord& record, std::chrono::system_clock::time_point now) {
  HttpHeaders fields = {{"id", record.id},
                        {"client", record.client},
                        {"method", record.method},
                        {"path", record.path.substr(0, 200)},
                        {"status", std::to_string(record.status)},
                        {"outcome", record.outcome},
                        {"bytes", std::to_string(record.bytes)},
                        {"ms", fixed(record.seconds * 1000)}};
  fields.insert(fields.end(), record.fields.begin(), record.fields.end());
  const bool is_fault = record.status >= 500;
  return log_line(is_fault ? "error" : "info", "request", fields, now);
}

}  // namespace quire
