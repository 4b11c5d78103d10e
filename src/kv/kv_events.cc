#include "kv/kv_events.h"

namespace quire {

const char* kv_event_name(KvEventKind kind) {
  switch (kind) {
    case KvEventKind::kStored:
      return "stored";
    case KvEventKind::kRemoved:
      return "removed";
    case KvEventKind::kEvicted:
      return "evicted";
    case KvEventKind::kForked:
      return "forked";
    case KvEventKind::kCopied:
      return "copied";
    case KvEventKind::kSwappedOut:
      return "swapped_out";
    case KvEventKind::kSwappedIn:
      return "swapped_in";
  }
  return "";
}

}  // namespace quire
