// The messages of a chat request, checked and brought to the form that chat templates read.
#pragma once

#include "frontend/chat_prompt.h"
#include "serve/api_request.h"
#include "serve/field_reader.h"

namespace quire {

// Reads "messages", "add_generation_prompt" and "chat_template_kwargs". Parts of text become one
// text, joined by newlines; the role "developer", which OpenAI has in place of "system", becomes
// that.
ChatPrompt read_chat_prompt(FieldReader& fields, const ApiContext& context);

}  // namespace quire
