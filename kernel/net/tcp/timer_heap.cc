// See timer_heap.h.
#include "kernel/net/tcp/timer_heap.h"

#include <algorithm>

namespace husk::net::tcp {

Result<void> TimerHeap::add_place() {
  if (places_ == capacity_) {
    size_t capacity = std::max<size_t>(capacity_ * 2, 16);
    TRY(heap_.reserve(capacity));
    capacity_ = capacity;
  }
  ++places_;
  return {};
}

void TimerHeap::place(size_t index, Entry entry) {
  heap_[index] = entry;
  entry.timer->index_ = static_cast<u32>(index);
}

void TimerHeap::sift_up(size_t index, Entry entry) {
  while (index > 0 && entry.due_ns < heap_[(index - 1) / 2].due_ns) {
    place(index, heap_[(index - 1) / 2]);
    index = (index - 1) / 2;
  }
  place(index, entry);
}

void TimerHeap::sift_down(size_t index, Entry entry) {
  for (size_t child; (child = index * 2 + 1) < heap_.size(); index = child) {
    if (child + 1 < heap_.size() && heap_[child + 1].due_ns < heap_[child].due_ns) ++child;
    if (entry.due_ns <= heap_[child].due_ns) break;
    place(index, heap_[child]);
  }
  place(index, entry);
}

void TimerHeap::set(Timer& timer, u64 due_ns) {
  cancel(timer);
  timer.due_ns_ = due_ns;
  if (due_ns == kNever) return;
  Entry entry{due_ns, &timer};
  HUSK_ASSERT(heap_.push_back(entry).ok());  // add_place() has made room
  sift_up(heap_.size() - 1, entry);
}

void TimerHeap::cancel(Timer& timer) {
  if (timer.index_ == Timer::kNone) return;
  size_t index = timer.index_;
  timer.index_ = Timer::kNone;
  timer.due_ns_ = kNever;
  Entry last = heap_.back();
  heap_.pop_back();
  if (index == heap_.size()) return;
  if (index > 0 && last.due_ns < heap_[(index - 1) / 2].due_ns) sift_up(index, last);
  else sift_down(index, last);
}

Timer* TimerHeap::pop_due(u64 now_ns) {
  if (heap_.empty() || heap_[0].due_ns > now_ns) return nullptr;
  Timer* timer = heap_[0].timer;
  cancel(*timer);
  return timer;
}

}  // namespace husk::net::tcp
