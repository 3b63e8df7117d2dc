// The queue of armed timers: a pairing heap by deadline (Fredman, Sedgewick, Sleator, Tarjan 1986), linked through the timers.
//
// left_: first child; next_: next sibling; previous_: previous sibling, or the parent of a first child. One vCPU: one queue.
#include "kernel/time/time.h"
#include "platform/platform.h"

namespace husk::time {

class TimerQueue {
 public:
  constexpr TimerQueue() = default;
  void arm(Timer& timer, u64 deadline_ns);
  void cancel(Timer& timer);
  void run();
  u64 next_deadline_ns() const { return root_ == nullptr ? kForever : root_->deadline_ns_; }

 private:
  static Timer* meld(Timer* a, Timer* b);
  static Timer* meld_siblings(Timer* first);
  void remove(Timer& timer);

  Timer* root_ = nullptr;
  bool running_ = false;  // run() tells the machine at its end
};

// Both are roots without siblings, or null.
Timer* TimerQueue::meld(Timer* a, Timer* b) {
  if (a == nullptr) return b;
  if (b == nullptr) return a;
  if (b->deadline_ns_ < a->deadline_ns_) std::swap(a, b);
  b->next_ = a->left_;
  if (b->next_ != nullptr) b->next_->previous_ = b;
  b->previous_ = a;
  a->left_ = b;
  return a;
}

// First pass: pairs from left to right, kept in reverse order through next_. Second pass: all into one, from the right.
Timer* TimerQueue::meld_siblings(Timer* first) {
  Timer* pairs = nullptr;
  while (first != nullptr) {
    Timer* a = first;
    Timer* b = a->next_;
    first = b == nullptr ? nullptr : b->next_;
    a->next_ = a->previous_ = nullptr;
    if (b != nullptr) b->next_ = b->previous_ = nullptr;
    Timer* pair = meld(a, b);
    pair->next_ = pairs;
    pairs = pair;
  }
  Timer* root = nullptr;
  while (pairs != nullptr) {
    Timer* pair = pairs;
    pairs = pair->next_;
    pair->next_ = nullptr;
    root = meld(root, pair);
  }
  return root;
}

void TimerQueue::remove(Timer& timer) {
  Timer* children = meld_siblings(timer.left_);
  if (&timer == root_) {
    root_ = children;
  } else {
    (timer.previous_->left_ == &timer ? timer.previous_->left_ : timer.previous_->next_) = timer.next_;
    if (timer.next_ != nullptr) timer.next_->previous_ = timer.previous_;
    root_ = meld(root_, children);
  }
  timer.left_ = timer.next_ = timer.previous_ = nullptr;
  timer.armed_ = false;
}

void TimerQueue::arm(Timer& timer, u64 deadline_ns) {
  u64 earliest = next_deadline_ns();
  cancel(timer);
  timer.deadline_ns_ = deadline_ns;
  timer.armed_ = true;
  root_ = meld(root_, &timer);
  if (deadline_ns < earliest && !running_) platform::arm_timer(ticks_at(deadline_ns));
}

void TimerQueue::cancel(Timer& timer) {
  if (timer.armed_) remove(timer);
}

void TimerQueue::run() {
  if (running_) return;
  running_ = true;
  // A callback that arms its timer for the past again and again must not hold the machine: one look at the clock.
  for (u64 now = monotonic_ns(); root_ != nullptr && root_->deadline_ns_ <= now;) {
    Timer& due = *root_;
    remove(due);
    due.callback_(due);
  }
  running_ = false;
  platform::arm_timer(root_ == nullptr ? 0 : ticks_at(root_->deadline_ns_));
}

namespace {
constinit TimerQueue queue;
}

void Timer::arm(u64 deadline_ns) { queue.arm(*this, deadline_ns); }
void Timer::cancel() { queue.cancel(*this); }
void run_timers() { queue.run(); }
u64 next_deadline_ns() { return queue.next_deadline_ns(); }

}  // namespace husk::time
