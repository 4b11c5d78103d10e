// Chat templates (Jinja, as Hugging Face renders them) behind the C ABI of text/ffi.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace quire {

// A compiled template. Immutable after construction and safe to call from any thread.
class ChatTemplate {
 public:
  // `source` is the template text. Renders as transformers' apply_chat_template does: trim_blocks,
  // lstrip_blocks, Python string methods, key order preserved, tojson equal to json.dumps,
  // raise_exception, strftime_now, {% generation %}. A syntax error names the line (kDataLoss).
  static Result<ChatTemplate> compile(std::string_view source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  struct RenderOptions {
    // The time that strftime_now shows: seconds since 1970-01-01T00:00:00 on the local clock.
    std::optional<int64_t> local_seconds;  // absent: now
  };
  // `context_json` is a JSON object: {"messages": [...], "add_generation_prompt": true, "tools":
  // [...], "bos_token": "...", "eos_token": "...", ...}. raise_exception becomes kInvalidArgument
  // with its text. Steps, memory (256 MiB) and output are bounded: a hostile template ends with an
  // error, not a hang.
  Result<std::string> render(std::string_view context_json, RenderOptions options) const;
  Result<std::string> render(std::string_view context_json) const {
    return render(context_json, RenderOptions());
  }

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quire
