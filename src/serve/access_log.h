// One line a request, as key=value words, on standard error.
#pragma once

#include <chrono>
#include <string>

#include "serve/http.h"

namespace quire {

// time=2026-01-31T12:00:00.123Z level=info event=request id=... method=POST path=... status=200 ...
// Values with spaces or quotes stand in quotes; nothing a client sends can break the line.
std::string access_log_line(const HttpRecord& record, std::chrono::system_clock::time_point now);
// For lines about the server itself: time=... level=... event=... and `fields`.
std::string log_line(const char* level,
                     const char* event,
                     const HttpHeaders& fields,
                     std::chrono::system_clock::time_point now);

}  // namespace quire
