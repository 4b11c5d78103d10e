#pragma once

#include <string>
#include <string_view>

namespace quire {

// 32 random hexadecimal digits.
std::string new_request_id();
// What a client may call its request: up to 128 letters, digits and any of "-_.:"; a new id in
// place of anything else.
std::string request_id_of(std::string_view wanted);

}  // namespace quire
