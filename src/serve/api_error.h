// Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>

#include "base/status.h"
#include "frontend/json.h"
#include "serve/http.h"

namespace quire {

// `code` is the HTTP status. `param` is the field that is wrong, or empty (JSON null).
Json error_json(int status, const std::string& message, const std::string& param = "");
HttpResponse error_response(int status, const std::string& message, const std::string& param = "");

int http_status_of(const Status& status);

}  // namespace quire
