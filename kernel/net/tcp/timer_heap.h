// Deadlines of many connections: a binary heap that is touched seldom.
//
// A connection keeps its own deadlines in plain fields and tells the heap only when one comes before the time at which it is due anyway; a timer
// that goes off too early looks at the fields and sets itself again. A request-response connection so touches the heap some 25 times a second.
#pragma once

#include "base/vec.h"

namespace husk::net::tcp {

constexpr u64 kNever = ~u64{0};

class Timer {
 public:
  virtual void on_timer(u64 now_ns) = 0;
  u64 due_ns() const { return due_ns_; }

 protected:
  ~Timer() = default;

 private:
  friend class TimerHeap;
  static constexpr u32 kNone = ~0u;
  u64 due_ns_ = kNever;
  u32 index_ = kNone;
};

class TimerHeap {
 public:
  // Each timer that may be set needs a place, so that set() cannot fail. ENOMEM.
  Result<void> add_place();
  void remove_place() { --places_; }

  void set(Timer& timer, u64 due_ns);
  void cancel(Timer& timer);
  // The next timer that is due, taken out; null: none.
  Timer* pop_due(u64 now_ns);
  u64 next_ns() const { return heap_.empty() ? kNever : heap_[0].due_ns; }

 private:
  struct Entry {
    u64 due_ns;
    Timer* timer;
  };
  void place(size_t index, Entry entry);
  void sift_up(size_t index, Entry entry);
  void sift_down(size_t index, Entry entry);
  Vec<Entry> heap_;
  size_t places_ = 0, capacity_ = 0;
};

}  // namespace husk::net::tcp
