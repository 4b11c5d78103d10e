// What happens to KV blocks, for those who watch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace quire {

enum class KvEventKind : uint8_t {
  kStored,      // `block` is full: it is found by `hash` from now on; `other` is its parent
  kRemoved,     // `block` lost its last holder and has nothing worth keeping: it is free
  kEvicted,     // `block`, found by `hash` until now, was given up for new content
  kForked,      // a table became one more holder of `count` blocks, of which `block` is the last
  kCopied,      // copy-on-write: `block` was copied to `other`
  kSwappedOut,  // `block` was copied to block `other` of the host pool
  kSwappedIn,   // and `other` of the host pool to `block`
};
const char* kv_event_name(KvEventKind kind);

struct KvEvent {
  KvEventKind kind;
  int32_t block = -1, other = -1, count = 1;
  uint64_t hash = 0;
  int64_t step = 0;  // of the engine, in which it happened
  bool operator==(const KvEvent&) const = default;
};

// Events in order, at most `capacity` of them: room that is there from the start.
class KvEventLog {
 public:
  explicit KvEventLog(size_t capacity) : capacity_(capacity) { events_.reserve(capacity); }

  void push(const KvEvent& event) {
    if (events_.size() < capacity_) {
      events_.push_back(event);
    } else {
      ++num_dropped_;
    }
  }
  std::span<const KvEvent> events() const { return events_; }
  size_t capacity() const { return capacity_; }
  int64_t num_dropped() const { return num_dropped_; }  // of all that were pushed
  void set_step(int64_t step) {
    for (KvEvent& event : events_) event.step = step;
  }
  void clear() { events_.clear(); }

 private:
  size_t capacity_;
  std::vector<KvEvent> events_;
  int64_t num_dropped_ = 0;
};

// Where a pool reports to: nowhere, or to the log of whoever owns it. No part of the pool's value:
// a copy of it reports nowhere, and equality does not look at it.
class KvEventTarget {
 public:
  KvEventTarget() = default;
  KvEventTarget(const KvEventTarget&) {}
  KvEventTarget& operator=(const KvEventTarget&) {
    log_ = nullptr;
    return *this;
  }
  void set(KvEventLog* log) { log_ = log; }
  void operator()(const KvEvent& event) const {
    if (log_ != nullptr) log_->push(event);
  }
  bool operator==(const KvEventTarget&) const { return true; }

 private:
  KvEventLog* log_ = nullptr;
};

}  // namespace quire
