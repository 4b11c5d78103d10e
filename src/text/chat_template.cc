#include "text/chat_template.h"

#include <ctime>
#include <utility>

#include "base/mutants.h"
#include "text/ffi_buffers.h"

namespace quire {

using text_ffi::Bytes;

struct ChatTemplate::Impl {
  explicit Impl(quire_text_template* h) : handle(h) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { quire_text_template_free(handle); }

  quire_text_template* handle;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::compile(std::string_view source) {
  quire_text_template* handle = nullptr;
  Bytes error;
  const int32_t code = quire_text_template_compile(text_ffi::view(source), &handle, error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return ChatTemplate(std::make_unique<Impl>(handle));
}

// Seconds since 1970-01-01T00:00:00 as the wall clock of this time zone shows them.
static int64_t local_seconds_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  return localtime_r(&now, &local) == nullptr ? now : int64_t{now} + local.tm_gmtoff;
}

Result<std::string> ChatTemplate::render(std::string_view context_json,
                                         RenderOptions options) const {
  Bytes text;
  Bytes error;
  if (mutant("text_template_without_context")) context_json = "{}";
  const int64_t now = options.local_seconds ? *options.local_seconds : local_seconds_now();
  const int32_t code = quire_text_template_render(
      impl_->handle, text_ffi::view(context_json), now, text.out(), error.out());
  QUIRE_RETURN_IF_ERROR(text_ffi::status(code, error));
  return text.str();
}

}  // namespace quire
