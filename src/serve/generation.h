// A request for answers, from the engine's streams to the bytes of a reply.
#pragma once

#include <memory>

#include "serve/http.h"
#include "serve/service.h"

namespace quire {

// Submits every prompt of `request`; what the engine refuses comes out of the reply.
std::unique_ptr<Reply> generate(Service& service,
                                ApiRequest request,
                                std::string request_id,
                                Wake wake);

// A refusal with what helps the client: of a full queue, when to come again and how long it is.
HttpResponse refusal(const Service& service, const Status& status, const std::string& param = "");

}  // namespace quire
